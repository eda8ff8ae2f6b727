//! The session's exporter service: outputs that the client names once the result is known.

use std::collections::{BTreeMap, HashMap};

use slipway_model::Diagnostic;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::{ClientSession, MAX_MESSAGE, failed};
use crate::wire::extra::exporter::{
    ExporterRequest, FinalizeExportRequest, FinalizeExportResponse, FindExportersRequest,
    FindExportersResponse,
};

/// Says whether the client has the service and nothing behind it.
fn is_absent(status: &Status) -> bool {
    matches!(status.code(), Code::Unimplemented | Code::Unavailable)
}

impl ClientSession {
    /// Asks which outputs a result gets.
    pub(crate) async fn find_exporters(
        &self,
        metadata: HashMap<String, Vec<u8>>,
        refs: Vec<String>,
    ) -> Result<Vec<ExporterRequest>, Diagnostic> {
        if !self.supports("/moby.exporter.v1.Exporter/FindExporters") {
            return Ok(Vec::new());
        }
        let request = FindExportersRequest { metadata, refs };
        let path = PathAndQuery::from_static("/moby.exporter.v1.Exporter/FindExporters");
        let answer: Result<FindExportersResponse, Status> = self.call(self.unary(request, path)).await;
        match answer {
            Ok(answer) => Ok(answer.exporters),
            Err(status) if is_absent(&status) => Ok(Vec::new()),
            Err(status) => Err(failed("cannot ask the client for outputs", &status)),
        }
    }

    /// Tells the client that the outputs are complete.
    pub(crate) async fn finalize_export(
        &self,
        exporter_response: BTreeMap<String, String>,
    ) -> Result<(), Diagnostic> {
        if !self.supports("/moby.exporter.v1.Exporter/FinalizeExport") {
            return Ok(());
        }
        let request = FinalizeExportRequest { exporter_response };
        let path = PathAndQuery::from_static("/moby.exporter.v1.Exporter/FinalizeExport");
        let answer: Result<FinalizeExportResponse, Status> = self.call(self.unary(request, path)).await;
        match answer {
            Err(status) if !is_absent(&status) => {
                Err(failed("the client did not finish its outputs", &status))
            }
            _ => Ok(()),
        }
    }

    async fn unary<A, B>(&self, message: A, path: PathAndQuery) -> Result<B, Status>
    where
        A: prost::Message + 'static,
        B: prost::Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.channel()).max_decoding_message_size(MAX_MESSAGE);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec: ProstCodec<A, B> = ProstCodec::default();
        Ok(grpc.unary(Request::new(message), path, codec).await?.into_inner())
    }
}
