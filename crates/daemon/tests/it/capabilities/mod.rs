//! Every capability that the daemon tells of, and what proves it.
//!
//! A proof builds something that cannot come out right without the capability, through the daemon and as a client
//! does. So nothing is advertised that is not there, and nothing is taken away unnoticed.

mod control;
mod files;
mod gateway;
mod git;
mod graph;
mod lab;
mod local;
mod sources;
mod steps;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bollard_buildkit_proto::moby::buildkit::v1::apicaps::ApiCap;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::PingRequest;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};

use lab::Lab;

/// How many proofs run at once.
const AT_ONCE: usize = 4;

type Proof = Box<dyn Fn(Arc<Lab>) -> BoxFuture<'static, ()> + Send + Sync>;

/// A capability, and what proves it by not panicking.
struct Row {
    capability: &'static str,
    proof: Proof,
}

fn row<F: Future<Output = ()> + Send + 'static>(
    capability: &'static str,
    proof: impl Fn(Arc<Lab>) -> F + Send + Sync + 'static,
) -> Row {
    Row { capability, proof: Box::new(move |lab| proof(lab).boxed()) }
}

/// Makes a name that nothing else in this process has.
fn unique(kind: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("{kind}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Insists that what is advertised is what there are rows for.
fn same(what: &str, advertised: &[ApiCap], rows: &[Row]) {
    let advertised: BTreeSet<&str> =
        advertised.iter().filter(|cap| cap.enabled).map(|cap| cap.id.as_str()).collect();
    let proved: BTreeSet<&str> = rows.iter().map(|row| row.capability).collect();
    let unproved: Vec<_> = advertised.difference(&proved).collect();
    let untold: Vec<_> = proved.difference(&advertised).collect();
    assert!(unproved.is_empty(), "{what}: advertised, and no row proves it: {unproved:?}");
    assert!(untold.is_empty(), "{what}: a row proves what is not advertised: {untold:?}");
    assert_eq!(proved.len(), rows.len(), "{what}: two rows for one capability");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_advertised_is_true() {
    let Some(lab) = Lab::start().await else { return };
    let pong = lab.setup().work(async |work| work.bridge.clone().ping(PingRequest {}).await.unwrap());
    let pong = pong.await.into_inner();
    let gateway = gateway::rows();
    let llb = [sources::rows(), git::rows(), local::rows(), steps::rows(), files::rows(), control::rows()];
    let llb: Vec<Row> = llb.into_iter().flatten().collect();
    same("gateway", &pong.frontend_api_caps, &gateway);
    same("LLB", &pong.llb_caps, &llb);
    let prove = |row: Row| {
        let lab = lab.clone();
        async move {
            let proved = AssertUnwindSafe((row.proof)(lab)).catch_unwind().await;
            proved.is_err().then_some(row.capability)
        }
    };
    let untrue = futures_util::stream::iter(gateway.into_iter().chain(llb)).map(prove);
    let untrue: Vec<_> = untrue.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await;
    assert!(untrue.is_empty(), "advertised and not so, as said above: {untrue:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dockerfile_asks_for_a_device() {
    let Some(lab) = Lab::start().await else { return };
    let build = async |asked: &str, granted: bool| {
        let text = format!(
            "FROM scratch\nCOPY sh /bin/\nRUN --device={asked} [\"/bin/sh\", \"-c\", \"echo $THING > /it\"]\n"
        );
        lab.environment.write("tools/Dockerfile", text);
        let place = unique("files");
        let mut setup = lab.setup().export("local", &[], &place);
        setup.spec.frontend = "dockerfile.v0".to_owned();
        if !granted {
            setup.spec.entitlements.clear();
        }
        let tools = lab.environment.path("tools");
        setup.offer.directories =
            ["context", "dockerfile"].map(|name| (name.to_owned(), tools.clone())).into();
        setup.solve().await?;
        Ok::<_, String>(std::fs::read_to_string(lab.environment.path(&place).join("it")).unwrap())
    };
    assert_eq!(build("test.invalid/thing=one,required", true).await.as_deref(), Ok("one\n"));
    assert_eq!(build("test.invalid/none", true).await.as_deref(), Ok("\n"), "it can do without");
    let missing = build("test.invalid/none,required", true).await.unwrap_err();
    assert!(missing.contains("required device \"test.invalid/none\" is not registered"), "{missing}");
    let refused = build("test.invalid/thing", false).await.unwrap_err();
    assert!(
        refused.contains("test.invalid/thing=one is requested by the build but not allowed"),
        "{refused}"
    );
}
