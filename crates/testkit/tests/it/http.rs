//! Files and contexts at addresses of the web.

use slipway_testkit::{Archive, Environment, FakeRegistry, Outcome, Reply};

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

#[test]
fn the_build_context_is_an_archive_or_a_dockerfile_at_an_address() {
    let environment = Environment::new();
    let archive = Archive::new()
        .directory("part/")
        .file("Dockerfile", b"FROM scratch\nCOPY part/text /\n")
        .file("part/text", b"of the archive\n")
        .finish();
    let server = FakeRegistry::start(move |request| match request.path.as_str() {
        "/context.tar?x=1" => Reply::body("application/x-tar", &archive),
        "/Dockerfile" => Reply::body("text/plain", b"FROM scratch\nCOPY context /itself\n"),
        "/other" => Reply::body("text/plain", b"FROM scratch\nCOPY here /\n"),
        "/wrong" => Reply::body("text/plain", b"FROM scratch\nCOPPY here /\n"),
        _ => Reply::status(404),
    });
    let out = environment.text("out");
    let build = |arguments: &[&str]| {
        let _ = std::fs::remove_dir_all(&out);
        environment.build(&[&["--output", &out], arguments].concat())
    };
    let read = |name: &str| std::fs::read_to_string(environment.path("out").join(name)).unwrap();
    build(&[&server.address("context.tar?x=1")]).succeeded();
    assert_eq!(read("text"), "of the archive\n");
    build(&[&server.address("Dockerfile")]).succeeded();
    assert_eq!(read("itself"), "FROM scratch\nCOPY context /itself\n");
    environment.write("context/here", "here\n");
    build(&["-f", &server.address("other"), &environment.text("context")]).succeeded();
    assert_eq!(read("here"), "here\n");
    let error = build(&["-f", &server.address("wrong"), &environment.text("context")]).failed(1);
    assert!(error.contains("did you mean COPY?") && error.contains("wrong:2"), "{error}");
    let error = build(&[&server.address("nothing")]).failed(1);
    for part in ["invalid response status 404", "check the address"] {
        assert!(error.contains(part), "no `{part}` in:\n{error}");
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = build(&[&format!("http://{closed}/a.tar")]).failed(1);
    for part in ["cannot download", "Connection refused", "check the network"] {
        assert!(error.contains(part), "no `{part}` in:\n{error}");
    }
}

#[test]
fn a_named_context_is_a_file_at_an_address() {
    let environment = Environment::new();
    let archive = Archive::new().file("text", b"of the archive\n").finish();
    let server = FakeRegistry::start(move |_| Reply::body("application/x-tar", &archive));
    let context = environment.context("context", "FROM scratch\nCOPY --from=file context /a.tar\n");
    let named = format!("file={}", server.address("files.tar"));
    let out = environment.text("out");
    environment.build(&["--build-context", &named, "--output", &out, &context]).succeeded();
    // As it is: only the main context is unpacked.
    assert!(std::fs::read(environment.path("out/a.tar")).unwrap().starts_with(b"text\0"));
}

#[test]
fn the_time_of_the_image_is_that_of_a_context_or_a_stage() {
    const WRITE: &str = "FROM scratch\nARG SOURCE_DATE_EPOCH\nCOPY <<E /epoch\n$SOURCE_DATE_EPOCH\nE\n";
    let environment = Environment::new();
    let archive = Archive::new()
        .at(1_700_000_001)
        .file("Dockerfile", WRITE.as_bytes())
        .at(1_700_000_003)
        .file("new", b"")
        .at(1_700_000_002)
        .file("old", b"")
        .finish();
    let server = FakeRegistry::start(move |request| match request.path.as_str() {
        "/archive.tar" => Reply::body("application/x-tar", &archive),
        // One of the forms that are no longer written, but sent.
        "/dated.tar" => Reply::body("application/x-tar", &archive)
            .header("last-modified", "Tuesday, 14-Nov-23 22:13:20 GMT"),
        "/text" => Reply::body("text/plain", b"undated\n"),
        _ => Reply::status(404),
    });
    let out = environment.text("out");
    let epoch = |context: &str, more: &[&str]| {
        environment.build(&[more, &["--output", &out, context]].concat()).succeeded();
        std::fs::read_to_string(environment.path("out/epoch")).unwrap().trim().to_owned()
    };
    let of_context = ["--build-arg=SOURCE_DATE_EPOCH=context"];
    assert_eq!(epoch(&server.address("archive.tar"), &of_context), "1700000003");
    assert_eq!(epoch(&server.address("dated.tar"), &of_context), "1700000000");
    let plain = environment.context("plain", WRITE);
    assert_eq!(epoch(&plain, &of_context), "");

    let named = format!("src={}", server.address("archive.tar"));
    assert_eq!(
        epoch(&plain, &["--build-arg=SOURCE_DATE_EPOCH=src", "--build-context", &named]),
        "1700000003"
    );
    let stage = |path: &str| {
        let address = server.address(path);
        let text = format!("ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nADD {address} /\n{WRITE}");
        environment.context("stage", &text)
    };
    assert_eq!(epoch(&stage("dated.tar"), &[]), "1700000000");
    assert_eq!(epoch(&stage("archive.tar"), &[]), "1700000003");
    assert_eq!(epoch(&stage("text"), &[]), "");
    assert_eq!(epoch(&stage("text"), &["--build-arg=SOURCE_DATE_EPOCH=12"]), "12");
    let error = environment.build(&["--build-arg=SOURCE_DATE_EPOCH=moon", &plain]).failed(1);
    assert!(error.contains("invalid SOURCE_DATE_EPOCH: moon"), "{error}");
}

#[test]
fn a_file_that_did_not_change_is_not_downloaded_again() {
    let environment = Environment::new();
    let body = || Reply::body("text/plain", b"text\n").header("etag", "\"1\"");
    // This one passes over `If-None-Match`.
    let server = FakeRegistry::start(move |_| body());
    let context = environment.context("context", &format!("FROM scratch\nADD {} /\n", server.address("x")));
    environment.build(&["--output", &environment.text("a"), &context]).succeeded();
    environment.build(&["--output", &environment.text("b"), &context]).succeeded();
    let methods: Vec<String> = server.requests().iter().map(|request| request.method.clone()).collect();
    assert_eq!(methods, ["GET", "HEAD"]);
    let digest = "sha256:2b1a6d4ad1dfeb7c5ae3a3c86a9ea8ab1ff8ab3a1e2c7f4f3a6d6ee5d3b0d9f0";
    let pinned = format!("FROM scratch\nADD --checksum={digest} {} /\n", server.address("y"));
    let error = environment.build(&[&environment.context("pinned", &pinned)]).failed(1);
    assert!(error.contains("digest mismatch"), "{error}");
}

#[test]
fn without_a_context_a_missing_file_is_told_so() {
    let environment = Environment::new();
    environment.write("Dockerfile", "FROM scratch\nCOPY a /\n");
    let archive = Archive::new().file("Dockerfile", b"FROM scratch\nCOPY a /\n").finish();
    environment.write("context.tar", archive);
    for (input, cause, hint) in [
        ("Dockerfile", "there is no build context", "slipway build -f - DIRECTORY < Dockerfile"),
        ("context.tar", "the context is the archive on standard input", ""),
    ] {
        let mut command = std::process::Command::new("sh");
        environment.settle(&mut command);
        command.arg("-c").arg(format!("exec '{}' build - < {input}", environment.program().display()));
        let error = Outcome::of(command).failed(1);
        for part in ["\"/a\": not found", cause, hint] {
            assert!(error.contains(part), "no `{part}` in:\n{error}");
        }
        assert!(!error.contains("ingest"), "a path of the state in:\n{error}");
    }
}
