//! The example that the tests build: `examples/hello`, for every platform of the base image.

use slipway_testkit::{BASE_PLATFORMS, Environment, Registry, project};

/// One build of the example, by its arguments.
pub(crate) struct Hello {
    arguments: Vec<String>,
}

impl Hello {
    /// Describes a build for all platforms.
    pub(crate) fn new(registry: &Registry) -> Self {
        let platforms: Vec<_> = BASE_PLATFORMS.iter().map(|(platform, _)| *platform).collect();
        Self::of(registry, &platforms)
    }

    /// Describes a build for some platforms.
    pub(crate) fn of(registry: &Registry, platforms: &[&str]) -> Self {
        let context = project().join("examples/hello");
        let arguments = [
            "build",
            "--progress=plain",
            "--provenance=false",
            "--platform",
            &platforms.join(","),
            "--build-arg",
            &format!("BASE={}", registry.reference("library/busybox")),
            context.to_str().expect("test paths are text"),
        ];
        Self { arguments: arguments.map(str::to_owned).into() }
    }

    /// Adds arguments.
    pub(crate) fn with(mut self, more: &[&str]) -> Self {
        self.arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Returns the arguments of the build.
    pub(crate) fn arguments(&self) -> &[String] {
        &self.arguments
    }
}

/// Returns what the image of a platform says.
pub(crate) fn says(platform: &str, machine: &str) -> String {
    let greetings = ["Bonjour", "Ciao", "Hallo", "Hej", "Hello"];
    let greeting = greetings[(machine.len() + 1) % greetings.len()];
    format!(
        "{greeting} from {machine}: built for {platform}, where uname says {machine} (sorted once, on linux/amd64)\n"
    )
}

/// Runs the image of every platform and compares what it says.
pub(crate) fn check_runs(environment: &Environment, reference: &str) {
    for (platform, machine) in BASE_PLATFORMS {
        let outcome = environment.run(["run", "--platform", platform, reference]).succeeded();
        assert_eq!(outcome.stdout, says(platform, machine), "{}", outcome.stderr);
    }
}
