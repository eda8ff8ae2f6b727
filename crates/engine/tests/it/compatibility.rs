//! Earlier versions of BuildKit's behaviour, as clients ask for them.

use std::sync::Arc;

use slipway_engine::{BuildOptions, BuildResult, ExportOptions, ExporterRequest, Refs};
use slipway_model::Compatibility;
use slipway_model::llb::GraphBuilder;
use slipway_model::progress::NoEvents;
use tokio_util::sync::CancellationToken;

use crate::client::Fixture;
use crate::definitions::mkfile;

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_version_makes_images_of_docker_s_types() {
    let fixture = Fixture::new();
    let made = async |compatibility| {
        let options = BuildOptions { compatibility, ..BuildOptions::local("one") };
        let build = fixture.engine.start(options, Arc::new(NoEvents), &CancellationToken::new()).unwrap();
        let mut graph = GraphBuilder::new();
        let edge = mkfile(&mut graph, None, "/a", "1");
        let made = build.solve(graph.finish(Some(edge)), true).await.unwrap();
        let result = BuildResult::new(Refs::Single(made), Default::default());
        let image = ExporterRequest { kind: "image".to_owned(), ..Default::default() };
        let exported = build.export(&result, &[image], &ExportOptions::default()).await.unwrap();
        exported.images[&0].media_type.clone()
    };
    assert_eq!(made(Compatibility::V015).await, "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(made(Compatibility::V031).await, "application/vnd.oci.image.manifest.v1+json");
}
