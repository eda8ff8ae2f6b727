//! Files and contexts at addresses of the web.

use slipway_testkit::{Environment, FakeRegistry, Reply};

#[test]
fn files_behind_a_login_are_added() {
    let environment = Environment::new();
    let server =
        FakeRegistry::start(|request| match (request.path.as_str(), request.header("authorization")) {
            ("/token", Some("Bearer hunter2hunter2")) | ("/header", Some("Digest hunter2hunter2")) => {
                Reply::body("text/plain", b"private\n")
            }
            _ => Reply::status(401),
        });
    let secret = environment.write("secret", "hunter2hunter2\n");
    let header = environment.write("header", "Digest hunter2hunter2");
    let out = environment.text("out");
    let build = |path: &str, more: &[&str]| {
        let dockerfile = format!("FROM scratch\nADD {} /\n", server.address(path));
        let context = environment.context("context", &dockerfile);
        environment.build(&[more, &["--output", &out, &context]].concat())
    };
    let error = build("token", &[]).failed(1);
    for part in ["invalid response status 401", "--secret id=HTTP_AUTH_TOKEN_127.0.0.1", "Dockerfile:2"] {
        assert!(error.contains(part), "no `{part}` in:\n{error}");
    }
    let token = format!("id=HTTP_AUTH_TOKEN_127.0.0.1,src={}", secret.display());
    let outcome = build("token", &["--secret", &token]).succeeded();
    assert!(!outcome.said().contains("hunter2"), "{}", outcome.said());
    assert_eq!(std::fs::read_to_string(environment.path("out/token")).unwrap(), "private\n");
    let header = format!("id=HTTP_AUTH_HEADER_127.0.0.1,src={}", header.display());
    build("header", &["--secret", &header]).succeeded();
    assert!(build("header", &["--secret", &token]).failed(1).contains("does not accept it"));
}
