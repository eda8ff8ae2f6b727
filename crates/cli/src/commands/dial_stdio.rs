//! `dial-stdio`: standard input and output become a connection to a builder's daemon.

use std::os::fd::{AsFd as _, OwnedFd};

use slipway_daemon::client::{Endpoint, InvalidEndpoint, Stream};
use slipway_model::{Diagnostic, ErrorKind};
use tokio::io::AsyncWriteExt as _;

use crate::app::Context;
use crate::args::builders::DialStdioArgs;
use crate::builders::{self, Docker, driver};
use crate::error::Failure;
use crate::settings::SettingsError;
use crate::{interrupt, output};

/// Runs `dial-stdio`, until either side closes.
pub(crate) fn run(args: &DialStdioArgs, context: &Context) -> Result<(), Failure> {
    let runtime = interrupt::runtime()?;
    let copied = runtime.block_on(async {
        let stream = match &args.addr {
            Some(address) => dial(&endpoint(address)?).await?,
            None => builder(args, context).await?,
        };
        copy(stream).await.map_err(|error| Failure::io("the connection to the daemon broke", &error))
    });
    // A read of standard input may go on for ever.
    runtime.shutdown_background();
    copied
}

/// Reads the value of `--addr`.
pub(super) fn endpoint(address: &str) -> Result<Endpoint, SettingsError> {
    address.parse().map_err(|error| {
        let error: InvalidEndpoint = error;
        SettingsError::flag(error.to_string()).hint("write `--addr unix://PATH` or `--addr tcp://HOST:PORT`")
    })
}

async fn dial(endpoint: &Endpoint) -> Result<Stream, Diagnostic> {
    endpoint.dial(driver::patience()?).await.map_err(|error| {
        Diagnostic::new(ErrorKind::Environment, format!("cannot connect to the daemon at {endpoint}"))
            .cause(error.to_string())
    })
}

/// Connects to the node of the builder that suits the platform.
async fn builder(args: &DialStdioArgs, context: &Context) -> Result<Stream, Failure> {
    let selected = builders::select(context.global.builder.as_deref(), &Docker::of_process())?;
    let group = selected.elsewhere.ok_or_else(|| {
        SettingsError::flag(format!("the builder `{}` has no daemon", selected.name))
            .hint("name a builder of the driver `remote` or `docker-container` with `--builder`")
    })?;
    output::text_to_stderr(&format!("builder: {}\n", group.name));
    let wanted = args.platform.as_deref().and_then(|text| text.parse().ok());
    let suits =
        |node: &&builders::Node| wanted.as_ref().is_some_and(|platform| node.platforms.contains(platform));
    let node = group.nodes.iter().find(suits).or(group.nodes.first());
    let node =
        node.ok_or_else(|| SettingsError::flag(format!("the builder `{}` has no nodes", group.name)))?;
    Ok(driver::dial(&group, node).await?)
}

async fn copy(stream: Stream) -> std::io::Result<()> {
    let own = |fd: std::io::Result<OwnedFd>| fd.map(|fd| tokio::fs::File::from_std(fd.into()));
    let mut input = own(std::io::stdin().as_fd().try_clone_to_owned())?;
    let mut output = own(std::io::stdout().as_fd().try_clone_to_owned())?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let there = async {
        tokio::io::copy(&mut input, &mut writer).await?;
        writer.shutdown().await
    };
    let back = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = tokio::io::AsyncReadExt::read(&mut reader, &mut buffer).await?;
            if length == 0 {
                return Ok(());
            }
            output.write_all(&buffer[..length]).await?;
            output.flush().await?;
        }
    };
    // When the daemon has closed, nobody needs what may still come on standard input.
    tokio::select! {
        result = back => result,
        result = async { there.await?; std::future::pending().await } => result,
    }
}
