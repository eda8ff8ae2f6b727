//! A distribution's own tools, emulated: apt installs a compiler, which compiles a program that then runs.

use slipway_testkit::{Environment, debian_context, is_root, need};

const DOCKERFILE: &str = r#"
FROM debian AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
COPY <<"END" /hello.c
#include <stdio.h>
#include <sys/utsname.h>

int main(void) {
    struct utsname name;
    uname(&name);
    printf("compiled for and run on %s\n", name.machine);
}
END
RUN gcc -O2 -static -o /hello /hello.c && /hello > /said

FROM scratch
COPY --from=build /hello /said /
ENTRYPOINT ["/hello"]
"#;

#[test]
fn apt_installs_a_compiler_and_what_it_compiles_runs() {
    // dpkg gives files to many owners; an ordinary user's build is shown by other tests.
    if !need(is_root(), "root") {
        return;
    }
    let Some(debian) = debian_context() else { return };
    let environment = Environment::new();
    let platforms = "linux/amd64,linux/arm64";
    let layout = format!("type=oci,tar=false,dest={}", environment.text("debian"));
    let debian = debian.to_str().expect("test paths are text");
    environment.build(&["--platform", platforms, "-o", &layout, debian]).succeeded();
    let base = format!("debian=oci-layout://{}", environment.text("debian"));
    let context = environment.context("app", DOCKERFILE);
    let files = format!("type=local,dest={}", environment.text("files"));
    let build = environment.build(&[
        "--platform",
        platforms,
        "--build-context",
        &base,
        "-o",
        &files,
        "-t",
        "compiled:1",
        "-o",
        "type=image",
        &context,
    ]);
    build.succeeded();
    for (platform, machine) in [("linux/amd64", "x86_64"), ("linux/arm64", "aarch64")] {
        let says = format!("compiled for and run on {machine}\n");
        let outcome = environment.run(["run", "--platform", platform, "compiled:1"]).succeeded();
        assert_eq!(outcome.stdout, says, "{}", outcome.stderr);
        let said = environment.path("files").join(platform.replace('/', "_")).join("said");
        assert_eq!(std::fs::read_to_string(said).unwrap(), says, "what it said in the build");
    }
}
