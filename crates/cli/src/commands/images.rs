//! `images`: what slipway's own store holds.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::app::Context;
use crate::args::storage::ImagesArgs;
use crate::builder::{Builder, StoredImage};
use crate::error::Failure;
use crate::output;
use crate::settings::SettingsError;
use crate::template::{JsonStyle, Template};
use crate::ui::format::{human_duration, human_size, rfc3339, table};

/// Runs `images`.
pub(crate) fn run(args: &ImagesArgs, context: &Context) -> Result<(), Failure> {
    let mut images = Builder::open(&context.global)?.images()?;
    if let Some(wanted) = &args.name {
        images.retain(|image| {
            image.name.as_ref().is_some_and(|name| name.familiar().contains(wanted.as_str()))
        });
    }
    images.sort_by(|a, b| (&a.name, a.digest).cmp(&(&b.name, b.digest)));
    output::text(&listing(&images, args, SystemTime::now())?)
}

fn listing(images: &[StoredImage], args: &ImagesArgs, now: SystemTime) -> Result<String, SettingsError> {
    if args.quiet {
        return Ok(images.iter().map(|image| format!("{}\n", image.digest)).collect());
    }
    match args.format.as_str() {
        "table" => Ok(as_table(images, args.no_trunc, now)),
        "json" => Ok(images.iter().map(|image| format!("{}\n", data(image, now))).collect()),
        text => {
            let failed = |error: crate::template::TemplateError| SettingsError::flag(error.to_string());
            let template = Template::parse(text, JsonStyle::Compact).map_err(failed)?;
            images
                .iter()
                .map(|image| template.execute(&data(image, now)).map(|text| text + "\n").map_err(failed))
                .collect()
        }
    }
}

fn as_table(images: &[StoredImage], whole: bool, now: SystemTime) -> String {
    let head = ["NAME", "DIGEST", "PLATFORMS", "CREATED", "SIZE"].map(str::to_owned).to_vec();
    let rows = images.iter().map(|image| {
        let digest = image.digest.to_string();
        let digest = if whole { digest } else { digest.chars().take("sha256:".len() + 12).collect() };
        vec![name(image), digest, platforms(image), created(image, now), human_size(image.size)]
    });
    table(&std::iter::once(head).chain(rows).collect::<Vec<_>>(), 3)
}

fn name(image: &StoredImage) -> String {
    image.name.as_ref().map_or_else(|| "<none>".to_owned(), |name| name.familiar())
}

fn platforms(image: &StoredImage) -> String {
    let list: Vec<String> = image.platforms.iter().map(ToString::to_string).collect();
    list.join(",")
}

fn created(image: &StoredImage, now: SystemTime) -> String {
    format!("{} ago", human_duration(now.duration_since(image.created).unwrap_or_default()))
}

/// Makes what JSON and templates see of an image.
fn data(image: &StoredImage, now: SystemTime) -> Value {
    let reference = image.name.as_ref();
    json!({
        "Name": name(image),
        "Repository": reference.map_or("<none>".to_owned(), |name| name.without_tag().familiar()),
        "Tag": reference.and_then(|name| name.tag()).unwrap_or("<none>"),
        "Digest": image.digest.to_string(),
        "ID": image.digest.to_string(),
        "Platforms": image.platforms.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "Size": human_size(image.size),
        "CreatedAt": rfc3339(image.created),
        "CreatedSince": created(image, now),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_model::Digest;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn images_are_listed() {
        let image = StoredImage {
            name: "app:1".parse().ok(),
            digest: Digest::of("x"),
            platforms: vec!["linux/amd64".parse().unwrap(), "linux/arm64".parse().unwrap()],
            size: 1_234_000,
            created: UNIX_EPOCH,
        };
        let now = UNIX_EPOCH + Duration::from_secs(7200);
        let mut args = ImagesArgs { name: None, format: "table".into(), quiet: false, no_trunc: false };
        let short = &Digest::of("x").to_string()[..19];
        assert_eq!(
            listing(std::slice::from_ref(&image), &args, now).unwrap(),
            format!(
                "NAME    DIGEST                PLATFORMS                 CREATED       SIZE\n\
                 app:1   {short}   linux/amd64,linux/arm64   2 hours ago   1.234MB\n"
            )
        );
        args.format = "{{.Repository}} {{.Tag}}".into();
        assert_eq!(listing(&[image], &args, now).unwrap(), "app 1\n");
        args.format = "{{".into();
        assert!(listing(&[], &args, now).is_err());
    }
}
