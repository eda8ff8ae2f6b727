use super::*;

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new(files: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "FROM scratch\n").unwrap();
        }
        Self { directory }
    }

    fn inputs(&self, context: &str, file: Option<&str>, stdin: &[u8]) -> Result<Inputs, SettingsError> {
        inputs(context, file, &mut Surroundings::fixed(self.directory.path(), &[], stdin))
    }

    fn dockerfile(&self, context: &str, file: Option<&str>) -> Result<String, String> {
        match self.inputs(context, file, b"FROM x\n") {
            Ok(Inputs { dockerfile: DockerfileSource::Path(path), .. }) => {
                Ok(path.display().to_string().replace(&self.directory.path().display().to_string(), "{cwd}"))
            }
            Ok(inputs) => Ok(format!("{:?}", inputs.dockerfile)),
            Err(error) => {
                let diagnostic = error.into_diagnostic();
                let hint = diagnostic.hint.unwrap_or_default();
                let hint = hint.replace(&self.directory.path().display().to_string(), "{cwd}");
                Err(format!("{} ({hint})", diagnostic.message))
            }
        }
    }
}

#[test]
fn dockerfiles_are_found_from_the_working_directory() {
    let place = Place::new(&["Dockerfile", "app/Dockerfile", "app/sub/App.dockerfile", "else/where"]);
    for (context, file, want) in [
        (".", None, "Dockerfile"),
        ("app", None, "Dockerfile"),
        ("app", Some("app/Dockerfile"), "Dockerfile"),
        ("app", Some("app/sub/App.dockerfile"), "sub/App.dockerfile"),
        ("app", Some("./app/./sub/App.dockerfile"), "sub/App.dockerfile"),
        ("app", Some("else/../app/Dockerfile"), "Dockerfile"),
        ("app", Some("Dockerfile"), "{cwd}/Dockerfile"),
        ("app", Some("else/where"), "{cwd}/else/where"),
        (".", Some("-"), "Inline([70, 82, 79, 77, 32, 120, 10])"),
        (".", Some("https://x/Dockerfile"), "Url(\"https://x/Dockerfile\")"),
        (".", Some(""), "Dockerfile"),
    ] {
        assert_eq!(place.dockerfile(context, file), Ok(want.to_owned()), "{context} {file:?}");
    }
    let absolute = place.directory.path().join("app/Dockerfile");
    assert_eq!(place.dockerfile("app", absolute.to_str()), Ok("Dockerfile".to_owned()));
}

#[test]
fn a_lower_case_dockerfile_serves_too() {
    assert_eq!(Place::new(&["dockerfile"]).dockerfile(".", None), Ok("dockerfile".to_owned()));
}

#[test]
fn a_missing_dockerfile_is_told_with_what_there_is() {
    let open = |name: &str| format!("failed to read dockerfile: open {name}: no such file or directory");
    assert_eq!(
        Place::new(&["x"]).dockerfile(".", None),
        Err(format!("{} (there is no Dockerfile in `{{cwd}}`: name one with `--file`)", open("Dockerfile")))
    );
    assert_eq!(
        Place::new(&["c/Dockerfile.dev", "c/.dockerignore"]).dockerfile("c", None),
        Err(format!("{} (write `--file {{cwd}}/c/Dockerfile.dev`)", open("Dockerfile")))
    );
    let place = Place::new(&["c/Dockerfile", "c/dev.Dockerfile"]);
    assert_eq!(
        place.dockerfile("c", Some("dev.Dockerfile")),
        Err(format!(
            "{} (`--file` starts at the working directory: write `--file {{cwd}}/c/dev.Dockerfile`)",
            open("dev.Dockerfile")
        ))
    );
    assert_eq!(
        place.dockerfile("c", Some("c/dve.Dockerfile")),
        Err(format!("{} (did you mean `--file {{cwd}}/c/dev.Dockerfile`?)", open("dve.Dockerfile")))
    );
}

#[test]
fn contexts_that_are_not_there() {
    let place = Place::new(&["file"]);
    let message = |context: &str, file: Option<&str>, stdin: &[u8]| {
        place.inputs(context, file, stdin).map(|_| ()).map_err(|error| error.to_string())
    };
    let err = |text: &str| Err(text.to_owned());
    assert_eq!(message("nowhere", None, b""), err("unable to prepare context: path \"nowhere\" not found"));
    assert_eq!(message("file", None, b""), err("unable to prepare context: path \"file\" is a file"));
    assert_eq!(message("", None, b""), err("please specify build context"));
    assert_eq!(message("-", None, b""), err("the Dockerfile on standard input is empty"));
    assert_eq!(
        message("-", Some("-"), b"x"),
        err("invalid argument: can't use stdin for both build context and dockerfile")
    );
    assert_eq!(
        message("-", Some("x"), b"FROM x"),
        err("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles")
    );
}

#[test]
fn remote_contexts() {
    let place = Place::new(&[]);
    for url in [
        "https://example.com/app.git#main:sub",
        "http://example.com/ctx.tar.gz",
        "git://example.com/x",
        "git@github.com:user/repo.git",
        "ssh://git@host/repo",
        "github.com/user/repo",
    ] {
        assert_eq!(place.inputs(url, None, b"").unwrap().context, ContextSource::Url(url.to_owned()));
    }
    for text in ["user@host", "a:b", "@host:path", "user@host:"] {
        assert!(place.inputs(text, None, b"").is_err(), "{text}");
    }
}

fn tar() -> Vec<u8> {
    let mut header = vec![0_u8; 512];
    header[..10].copy_from_slice(b"Dockerfile");
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(b"00000000000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header.resize(512 * 3, 0);
    header
}

#[test]
fn standard_input_is_a_dockerfile_or_an_archive() {
    let place = Place::new(&[]);
    let text = place.inputs("-", None, b"FROM scratch\n").unwrap();
    assert_eq!(text.context, ContextSource::Empty);
    assert_eq!(text.dockerfile, DockerfileSource::Inline(b"FROM scratch\n".to_vec()));

    for archive in [tar(), b"\x1f\x8b\x08rest".to_vec(), b"BZh9".to_vec(), b"\xfd7zXZ\0".to_vec()] {
        let inputs = place.inputs("-", Some("sub/Dockerfile"), &archive).unwrap();
        let ContextSource::Archive(path) = &inputs.context else { panic!("{inputs:?}") };
        assert_eq!(std::fs::read(path).unwrap(), archive);
        assert_eq!(inputs.dockerfile, DockerfileSource::Path("sub/Dockerfile".into()));
    }
    let mut damaged = tar();
    damaged[0] = b'X';
    assert!(!is_archive(&damaged));
}

#[test]
fn named_contexts() {
    let place = Place::new(&["assets/x", "layout/index.json"]);
    let around = Surroundings::fixed(place.directory.path(), &[], b"");
    let of = |text: &str| named(&[text.to_owned()], &around).map(|mut list| list.remove(0));
    let digest = slipway_model::Digest::of("x");
    let layout =
        |selector| NamedContextSource::OciLayout { path: place.directory.path().join("layout"), selector };
    for (text, name, want) in [
        ("a=assets", "a", NamedContextSource::Directory(place.directory.path().join("assets"))),
        (
            "docker.io/library/busybox:latest=docker-image://alpine:3",
            "busybox",
            NamedContextSource::Image("alpine:3".parse().unwrap()),
        ),
        ("b:1=oci-layout://layout", "b:1", layout(LayoutSelector::Default)),
        ("b=oci-layout://layout:v1", "b", layout(LayoutSelector::Tag("v1".into()))),
        (&format!("b=oci-layout://layout@{digest}"), "b", layout(LayoutSelector::Digest(digest))),
        (&format!("b=oci-layout://layout:v1@{digest}"), "b", layout(LayoutSelector::Digest(digest))),
        ("g=https://x/y.git", "g", NamedContextSource::Url("https://x/y.git".into())),
    ] {
        let got = of(text).unwrap();
        assert_eq!((got.name.as_str(), &got.source), (name, &want), "{text}");
    }
    let got = of("a::linux/arm64=assets").unwrap();
    assert_eq!(got.platform, "linux/arm64".parse().ok());
    for (text, want) in [
        ("nocontextvalue", "invalid context value: nocontextvalue, expected key=value"),
        ("a=nowhere", "failed to get build context a: stat nowhere: no such file or directory"),
        ("a=assets/x", "failed to get build context a: stat assets/x: not a directory"),
        ("a=oci-layout://assets", "failed to get build context a: there is no OCI layout at assets"),
    ] {
        assert_eq!(of(text).unwrap_err().to_string(), want);
    }
    for text in ["A=assets", "=assets", "a=docker-image://", "a=target:x", "a=oci-layout://layout@sha256:12"]
    {
        assert!(of(text).is_err(), "{text}");
    }
    let last = named(&["a=assets".into(), "a=https://x/".into()], &around).unwrap();
    assert_eq!(last.len(), 1);
}
