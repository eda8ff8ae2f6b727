//! Cache records, small values, named images.

use std::time::{Duration, SystemTime};

use slipway_model::{Descriptor, Digest, MediaType};
use slipway_store::{CacheEntry, StoreError};

use crate::support::Scratch;

#[test]
fn records_live_as_long_as_their_snapshots() {
    let scratch = Scratch::new();
    let cache = scratch.store.cache();
    let id =
        scratch.store.snapshots().prepare(None, &scratch.lease).unwrap().commit(&Default::default()).unwrap();
    let key = |name: &str| Digest::of(name);
    cache.put(&key("c"), &[key("k1"), key("k2")], b"payload", &[id], &scratch.lease).unwrap();
    cache.link(&key("k3"), &key("c")).unwrap();
    for name in ["k1", "k2", "k3", "c"] {
        assert_eq!(cache.canonical(&[key("none"), key(name)]).unwrap(), Some(key("c")));
    }
    let record = cache.acquire(&key("c"), &scratch.lease).unwrap().unwrap();
    assert_eq!((record.payload.as_slice(), record.snapshots.as_slice()), (&b"payload"[..], &[id][..]));
    assert!(matches!(scratch.store.snapshots().remove(id), Err(StoreError::InUse(_))));
    let Scratch { store, lease, dir: _dir } = scratch;
    drop(lease);
    store.snapshots().remove(id).unwrap();
    assert_eq!(store.cache().record(&key("c")).unwrap(), None);
    assert_eq!(store.cache().canonical(&[key("k1")]).unwrap(), None);
}

#[test]
fn records_are_replaced_and_forgotten() {
    let scratch = Scratch::new();
    let cache = scratch.store.cache();
    let key = Digest::of("c");
    let entry = |payload: &[u8]| CacheEntry {
        canonical: key,
        keys: vec![Digest::of("k")],
        payload: payload.to_vec(),
        snapshots: vec![],
    };
    cache.put_all(&[entry(b"one"), entry(b"two")], &scratch.lease).unwrap();
    assert_eq!(cache.record(&key).unwrap().unwrap().payload, b"two");
    cache.forget(&key).unwrap();
    assert_eq!(cache.record(&key).unwrap(), None);
    assert_eq!(cache.canonical(&[Digest::of("k")]).unwrap(), None);
}

#[test]
fn values_age() {
    let scratch = Scratch::new();
    let values = scratch.store.key_values();
    values.put("resolve", b"alpine", b"sha256:1").unwrap();
    values.put("other", b"alpine", b"x").unwrap();
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    let get = |now| values.get_fresh("resolve", b"alpine", hour, now).unwrap();
    assert_eq!(get(now + hour / 2).as_deref(), Some(&b"sha256:1"[..]));
    assert_eq!(get(now + 2 * hour), None);
    assert_eq!(values.list("resolve").unwrap().len(), 1);
    values.remove_older("resolve", now + hour).unwrap();
    assert_eq!(values.get("resolve", b"alpine").unwrap(), None);
    assert_eq!(values.get("other", b"alpine").unwrap().unwrap().value, b"x");
    values.remove("other", b"alpine").unwrap();
    assert_eq!(values.get("other", b"alpine").unwrap(), None);
}

#[test]
fn a_named_image_keeps_its_blobs() {
    let scratch = Scratch::new();
    let (content, images) = (scratch.store.content(), scratch.store.images());
    let put = |bytes: &[u8]| content.put(bytes, &scratch.lease).unwrap();
    let (config, layer) = (put(b"{}"), put(b"layer"));
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"{}","digest":"{config}","size":2}},"layers":[{{"mediaType":"{}","digest":"{layer}","size":5}}]}}"#,
        MediaType::OCI_CONFIG,
        MediaType::OCI_LAYER
    );
    put(manifest.as_bytes());
    let manifest = Descriptor::of(MediaType::OCI_MANIFEST, manifest.as_bytes());
    let index =
        format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, serde_json::to_string(&manifest).unwrap());
    put(index.as_bytes());
    let index = Descriptor::of(MediaType::OCI_INDEX, index.as_bytes());
    let unnamed = put(b"unnamed");
    images.put("app:1", &index).unwrap();
    images.put("app:1", &index).unwrap();
    assert_eq!(images.get("app:1").unwrap().unwrap().descriptor, index);
    let Scratch { store, lease, dir: _dir } = scratch;
    drop(lease);
    let options = slipway_store::PruneOptions { all: true, ..Default::default() };
    assert_eq!(store.prune(&options).unwrap().len(), 1);
    for digest in [config, layer, manifest.digest, index.digest] {
        assert!(store.content().contains(&digest).unwrap().is_some());
    }
    assert_eq!(store.content().contains(&unnamed).unwrap(), None);
    assert_eq!(store.images().list().unwrap().len(), 1);
    assert!(store.images().remove("app:1").unwrap() && !store.images().remove("app:1").unwrap());
    assert_eq!(store.prune(&options).unwrap().len(), 4);
}
