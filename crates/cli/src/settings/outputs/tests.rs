use slipway_model::solve::Compression;

use super::super::annotation;
use super::*;

fn around(directory: &Path) -> Surroundings {
    Surroundings::fixed(directory, &[], b"")
}

fn flags<'a>(outputs: &'a [String], tags: &'a [String]) -> OutputFlags<'a> {
    OutputFlags { outputs, push: false, load: false, tags, annotations: &[], local_delete: false }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

/// Shows outputs shortly.
fn show(specs: &[OutputSpec]) -> Vec<String> {
    let names = |names: &[Reference]| names.iter().map(Reference::familiar).collect::<Vec<_>>().join(",");
    let place = |destination: &Destination| match destination {
        Destination::Stdout => "-".to_owned(),
        Destination::Client(id) => format!("client {id}"),
        Destination::Path(path) => path.file_name().unwrap().to_string_lossy().into_owned(),
    };
    specs
        .iter()
        .map(|spec| match spec {
            OutputSpec::Image(o) => {
                format!("image {}{}", names(&o.names), if o.push { " push" } else { "" })
            }
            OutputSpec::Oci(o) => format!("oci {} {} tar={}", names(&o.names), place(&o.destination), o.tar),
            OutputSpec::Docker(o) => format!(
                "docker {} {} {}",
                names(&o.names),
                o.destination.as_ref().map_or("load".into(), place),
                o.engine.as_deref().unwrap_or("")
            ),
            OutputSpec::Local(o) => {
                format!("local {} {:?} {}", place(&o.destination), o.platform_split, o.delete)
            }
            OutputSpec::Tar(o) => format!("tar {} {:?}", place(&o.destination), o.platform_split),
            OutputSpec::CacheOnly => "cacheonly".to_owned(),
        })
        .collect()
}

fn of(outputs: &[&str], tags: &[&str]) -> Result<Vec<String>, String> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), "").unwrap();
    std::fs::create_dir(directory.path().join("dir")).unwrap();
    let (outputs, tags) = (strings(outputs), strings(tags));
    parse(&flags(&outputs, &tags), &around(directory.path()))
        .map(|outputs| show(&outputs.specs))
        .map_err(|error| error.to_string())
}

#[test]
fn outputs_of_every_type() {
    for (output, want) in [
        ("out", "local out None false"),
        ("-", "tar - None"),
        ("type=local,dest=out", "local out None false"),
        ("type=local,dest=out,platform-split=false", "local out Some(false) false"),
        ("type=local,dest=out,mode=delete", "local out None true"),
        ("type=tar,dest=x.tar", "tar x.tar None"),
        ("type=tar", "tar - None"),
        ("type=oci,dest=x.tar", "oci  x.tar tar=true"),
        ("type=oci,dest=dir,tar=false", "oci  dir tar=false"),
        ("type=oci", "oci  - tar=true"),
        ("type=docker", "docker  load "),
        ("type=docker,context=remote", "docker  load remote"),
        ("type=docker,dest=x.tar", "docker  x.tar "),
        ("type=docker,dest=-", "docker  - "),
        ("type=image", "image "),
        ("type=image,name=app", "image app:latest"),
        ("type=image,\"name=a,b:1\",push=true", "image a:latest,b:1 push"),
        ("type=registry,name=r.io/app", "image r.io/app:latest push"),
        ("TYPE=image, Push =true,name=a", "image a:latest push"),
        ("type=image,push=,name=a", "image a:latest push"),
        ("type=cacheonly", "cacheonly"),
        ("type=image,unpack=false,store=false,name-canonical=true", "image "),
    ] {
        assert_eq!(of(&[output], &[]), Ok(vec![want.to_owned()]), "{output}");
    }
}

#[test]
fn mistakes_are_named() {
    for (output, want) in [
        ("dest=x,tar=true", "type is required for `--output dest=x,tar=true`"),
        ("type=oci,x", "invalid value `type=oci,x` for `--output`: field `x` must be a key=value pair"),
        ("type=img", "unknown output type `img`"),
        ("type=local", "dest is required for local exporter"),
        ("type=local,dest=-", "dest cannot be stdout for local exporter"),
        ("type=local,dest=file", "destination directory file is a file"),
        ("type=oci,dest=dir", "destination file dir is a directory"),
        ("type=oci,tar=false", "dest is required for oci exporter"),
        ("type=image,push=maybe", "invalid value `maybe` for `push` of the output `image`"),
        ("type=image,push=true", "tag is needed when pushing to registry"),
        ("type=image,compresion=zstd", "unknown key `compresion` in `--output type=image,compresion=zstd`"),
        ("type=image,compression=lzma", "unsupported layer compression type `lzma`"),
        ("type=image,compression=estargz", "`compression=estargz` is not supported yet"),
        ("type=image,compression-level=10", "invalid value `10` for `compression-level`"),
        ("type=local,dest=out,mode=move", "invalid mode `move` of a local output"),
        (
            "type=image,prefer-nondist-layers=true",
            "`prefer-nondist-layers` of `--output` is not supported yet",
        ),
        ("type=image,annotationx=1", "invalid key `annotationx` of an output"),
        (
            "type=image,name=App",
            "invalid name `App`: invalid reference `App`: the repository name must be lowercase",
        ),
    ] {
        assert_eq!(of(&[output], &[]), Err(want.to_owned()), "{output}");
    }
    let outside = of(&["type=local,dest=..,mode=delete"], &[]).unwrap_err();
    assert!(outside.contains("could remove other files"), "{outside}");
    assert!(of(&["type=local,dest=.,mode=delete"], &[]).is_err());
    assert_eq!(
        of(&["type=tar", "type=oci"], &[]),
        Err("multiple outputs configured to write to stdout".to_owned())
    );
}

#[test]
fn tags_name_every_image_output() {
    assert_eq!(of(&[], &[]), Ok(strings(&["image "])));
    assert_eq!(of(&[], &["app", "r.io/app:2", "app"]), Ok(strings(&["image app:latest,r.io/app:2"])));
    assert_eq!(
        of(&["type=oci,dest=x,name=own", "type=docker", "type=cacheonly", "out"], &["app:1"]),
        Ok(strings(&["oci app:1 x tar=true", "docker app:1 load ", "local out None false"]))
    );
    assert!(of(&[], &["App:1"]).unwrap_err().starts_with("invalid tag `App:1`"));
    // As of a script whose variable is not set.
    assert!(of(&[], &[""]).is_err());
    assert!(of(&[], &["a:b:c"]).is_err());
}

#[test]
fn push_and_load_add_to_what_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let of = |outputs: &[&str], push: bool, load: bool| {
        let (outputs, tags) = (strings(outputs), strings(&["app"]));
        let flags = OutputFlags { push, load, ..flags(&outputs, &tags) };
        show(&parse(&flags, &around(directory.path())).unwrap().specs)
    };
    assert_eq!(of(&[], true, false), ["image app:latest push"]);
    assert_eq!(of(&[], false, true), ["docker app:latest load "]);
    assert_eq!(of(&[], true, true), ["image app:latest push", "docker app:latest load "]);
    assert_eq!(of(&["type=image"], true, false), ["image app:latest push"]);
    assert_eq!(of(&["type=docker"], false, true), ["docker app:latest load "]);
    assert_eq!(of(&["type=docker,dest=x"], false, true), ["docker app:latest x ", "docker app:latest load "]);
    assert_eq!(of(&["out"], true, false), ["local out None false", "image app:latest push"]);
}

#[test]
fn layers_are_written_as_asked() {
    let directory = tempfile::tempdir().unwrap();
    let outputs = strings(&[
        "type=image,name=a,compression=zstd,compression-level=19,force-compression=true,oci-mediatypes=false,\
         rewrite-timestamp=true,annotation.k=own,annotation-index.i=1,source-date-epoch=12",
    ]);
    let annotations = annotation::from_flags(&strings(&["k=flag", "manifest[linux/arm64]:p=1"])).unwrap();
    let flags = OutputFlags { annotations: &annotations, ..flags(&outputs, &[]) };
    let parsed = parse(&flags, &around(directory.path())).unwrap();
    let [OutputSpec::Image(output)] = parsed.specs.as_slice() else { panic!("{parsed:?}") };
    assert_eq!(output.image.compression, Compression::Zstd);
    assert_eq!(output.image.compression_level, Some(19));
    assert!(output.image.force_compression && output.image.rewrite_timestamp);
    assert_eq!(output.image.oci_media_types, Some(false));
    let keys: Vec<String> =
        output.image.annotations.iter().map(|a| format!("{}={}", a.key, a.value)).collect();
    assert_eq!(keys, ["i=1", "k=flag", "p=1"]);
    assert_eq!(parsed.source_date_epoch, Some(SourceDateEpoch::Seconds(12)));
}

#[test]
fn a_terminal_gets_no_archive() {
    let directory = tempfile::tempdir().unwrap();
    let mut around = around(directory.path());
    around.stdout_is_terminal = true;
    let outputs = strings(&["type=oci"]);
    assert!(parse(&flags(&outputs, &[]), &around).is_err());
}
