//! Several cache configs as one: what more than one of them has is there once.
//!
//! A layer is known by its blob and what it lies on. A record of ours is known by its canonical key; one of
//! BuildKit's is known by what leads to it too, so equal ones stay beside each other, and are taken together by
//! BuildKit itself when it reads them. The same configs in the same order give the same bytes.

use std::collections::HashMap;

use slipway_model::{Descriptor, Digest};

use super::config::{CacheConfig, CacheLayer, CacheRecord, MAX_KEYS, OwnRecord, Top};

/// Configs that were put together so far.
#[derive(Debug, Default)]
pub(super) struct Union {
    config: CacheConfig,
    blobs: HashMap<Digest, Descriptor>,
    /// Positions of layers, by blob and position of the layer below.
    layers: HashMap<(String, i64), usize>,
    /// Positions of our records, by canonical key.
    own: HashMap<String, usize>,
}

impl Union {
    /// Adds a config and the blobs that come with it; one that leads nowhere is refused.
    pub(super) fn add(
        &mut self,
        config: CacheConfig,
        blobs: HashMap<Digest, Descriptor>,
    ) -> Result<(), String> {
        config.check(&blobs)?;
        let layers = self.add_layers(&config.layers);
        let records = self.place(&config.records);
        for (record, position) in config.records.into_iter().zip(&records) {
            let record = moved(record, &layers, &records);
            match self.config.records.get_mut(*position) {
                Some(known) => join(known, record),
                None => self.config.records.push(record),
            }
        }
        for (digest, blob) in blobs {
            self.blobs.entry(digest).or_insert(blob);
        }
        Ok(())
    }

    /// Returns the config, and the blobs of its layers as a manifest lists them.
    pub(super) fn finish(mut self) -> (CacheConfig, Vec<Descriptor>) {
        let digests = self.config.layers.iter().filter_map(|layer| layer.blob.parse::<Digest>().ok());
        let blobs = digests.filter_map(|digest| self.blobs.remove(&digest)).collect();
        (self.config, blobs)
    }

    /// Adds layers, each after the one it lies on; returns where they are.
    fn add_layers(&mut self, layers: &[CacheLayer]) -> Vec<usize> {
        let mut places: Vec<Option<usize>> = vec![None; layers.len()];
        for start in 0..layers.len() {
            let mut path = Vec::new();
            let mut at = Some(start);
            while let Some(layer) = at.filter(|layer| places[*layer].is_none()) {
                path.push(layer);
                at = usize::try_from(layers[layer].parent).ok();
            }
            for layer in path.into_iter().rev() {
                let below = usize::try_from(layers[layer].parent).ok().and_then(|below| places[below]);
                let parent = below.map_or(-1, |below| below as i64);
                let all = &mut self.config.layers;
                let place = self.layers.entry((layers[layer].blob.clone(), parent)).or_insert_with(|| {
                    all.push(CacheLayer { parent, ..layers[layer].clone() });
                    all.len() - 1
                });
                places[layer] = Some(*place);
            }
        }
        places.into_iter().flatten().collect()
    }

    /// Says where records will be.
    fn place(&mut self, records: &[CacheRecord]) -> Vec<usize> {
        let mut next = self.config.records.len();
        let mut fresh = || {
            next += 1;
            next - 1
        };
        let place = |record: &CacheRecord| match record.slipway {
            Some(_) => *self.own.entry(record.digest.clone()).or_insert_with(&mut fresh),
            None => fresh(),
        };
        records.iter().map(place).collect()
    }
}

/// Makes a record name layers and records by where they are now.
fn moved(mut record: CacheRecord, layers: &[usize], records: &[usize]) -> CacheRecord {
    let layer = |old: i64| layers[old as usize];
    record.layers.iter_mut().for_each(|result| result.layer = layer(result.layer) as i64);
    let chains = record.chains.iter_mut().flat_map(|chain| &mut chain.layers);
    chains.for_each(|one| *one = layer(*one) as i64);
    let inputs = record.inputs.iter_mut().flatten();
    inputs.for_each(|input| input.link = records[input.link as usize] as i64);
    for top in record.slipway.iter_mut().flat_map(|own| own.outputs.iter_mut().flatten()) {
        if let Top::Layer(old) = top {
            *top = Top::Layer(layers[*old]);
        }
    }
    record
}

/// Adds to a record of ours what another one of the same key knows. Results are not mixed: outputs of different
/// runs need not belong together.
fn join(known: &mut CacheRecord, other: CacheRecord) {
    let (Some(own), Some(more)) = (&mut known.slipway, other.slipway) else { return };
    for key in &more.keys {
        if own.keys.len() < MAX_KEYS && !own.keys.contains(key) {
            own.keys.push(*key);
        }
    }
    let count = |own: &OwnRecord| own.outputs.iter().flatten().filter(|top| **top != Top::Absent).count();
    if count(&more) > count(own) {
        own.outputs = more.outputs;
        (known.layers, known.chains) = (other.layers, other.chains);
    }
    if known.inputs.is_empty() {
        known.inputs = other.inputs;
    }
}

#[cfg(test)]
mod tests {
    use slipway_model::MediaType;

    use super::super::config::{CacheInput, CacheResult, Output};
    use super::*;

    fn blob(name: &str) -> Descriptor {
        let mut blob = Descriptor::of(MediaType::OCI_LAYER_GZIP, name.as_bytes());
        blob.annotations
            .insert(super::super::config::DIFF_ID.to_owned(), Digest::of(format!("{name}.tar")).to_string());
        blob
    }

    fn blobs(names: &[&str]) -> HashMap<Digest, Descriptor> {
        names.iter().map(|name| (blob(name).digest, blob(name))).collect()
    }

    fn layer(name: &str, parent: i64) -> CacheLayer {
        CacheLayer { blob: blob(name).digest.to_string(), parent, annotations: None }
    }

    /// A record of BuildKit's.
    fn record(name: &str, top: Option<i64>, links: &[i64]) -> CacheRecord {
        let result = |layer| CacheResult { layer, created_at: String::new() };
        CacheRecord {
            layers: top.map(result).into_iter().collect(),
            digest: Digest::of(name).to_string(),
            inputs: links
                .iter()
                .map(|link| vec![CacheInput { selector: "s".to_owned(), link: *link }])
                .collect(),
            ..CacheRecord::default()
        }
    }

    /// A record of ours, with a key of its own.
    fn own(name: &str, key: &str, tops: &[Top], links: &[i64]) -> CacheRecord {
        let first = tops.iter().find_map(|top| top.layer()).map(|top| top as i64);
        let outputs = Some(tops.to_vec()).filter(|tops| !tops.is_empty());
        CacheRecord {
            slipway: Some(OwnRecord { keys: vec![Digest::of(key)], outputs }),
            ..record(name, first, links)
        }
    }

    #[test]
    fn records_of_buildkit_keep_what_they_lead_to() {
        let mut union = Union::default();
        let first = CacheConfig {
            layers: vec![layer("base", -1), layer("a", 0)],
            records: vec![record("from", Some(0), &[]), record("run a", Some(1), &[0])],
        };
        // Here the layer above comes first.
        let second = CacheConfig {
            layers: vec![layer("b", 1), layer("base", -1)],
            records: vec![record("run b", Some(0), &[1]), record("from", Some(1), &[])],
        };
        union.add(first, blobs(&["base", "a"])).unwrap();
        union.add(second, blobs(&["base", "b"])).unwrap();
        let (config, listed) = union.finish();
        assert_eq!(config.layers, [layer("base", -1), layer("a", 0), layer("b", 0)]);
        let leads = |at: usize| {
            let record = &config.records[at];
            (record.layers[0].layer, record.inputs.iter().flatten().map(|i| i.link).collect::<Vec<_>>())
        };
        assert_eq!([leads(0), leads(1)], [(0, vec![]), (1, vec![0])]);
        assert_eq!([leads(2), leads(3)], [(2, vec![3]), (0, vec![])]);
        assert_eq!(listed, [blob("base"), blob("a"), blob("b")]);
        config.check(&blobs(&["base", "a", "b"])).unwrap();
    }

    #[test]
    fn a_record_of_ours_is_there_once_with_all_that_is_known() {
        let mut union = Union::default();
        let first = CacheConfig {
            layers: Vec::new(),
            records: vec![own("shared", "key one", &[], &[]), own("one", "k", &[Top::Empty], &[0])],
        };
        let second = CacheConfig {
            layers: vec![layer("b", -1)],
            records: vec![
                own("two", "k", &[Top::Empty], &[1]),
                own("shared", "key two", &[Top::Layer(0)], &[]),
            ],
        };
        union.add(first, HashMap::new()).unwrap();
        union.add(second, blobs(&["b"])).unwrap();
        let (config, _) = union.finish();
        assert_eq!(config.records.len(), 3);
        assert_eq!(config.records[2].inputs[0][0].link, 0, "the other input is the shared record");
        let checked = config.check(&blobs(&["b"])).unwrap();
        let shared = &checked.records[&Digest::of("shared")];
        assert_eq!(shared.keys, [Digest::of("key one"), Digest::of("key two")]);
        assert_eq!(shared.outputs, [Some(Output::Layer(0))]);
    }

    #[test]
    fn outputs_of_different_runs_are_not_mixed() {
        let of = |tops: &[Top]| CacheConfig {
            layers: vec![layer("x", -1), layer("y", -1)],
            records: vec![own("step", "k", tops, &[])],
        };
        let joined = |first: &[Top], second: &[Top]| {
            let mut union = Union::default();
            union.add(of(first), HashMap::new()).unwrap();
            union.add(of(second), HashMap::new()).unwrap();
            union.finish().0.records.remove(0).slipway.unwrap().outputs.unwrap()
        };
        let (some, other) = ([Top::Layer(0), Top::Absent], [Top::Absent, Top::Layer(1)]);
        assert_eq!(joined(&some, &other), some);
        let all = [Top::Layer(1), Top::Layer(1)];
        assert_eq!(joined(&some, &all), all);
    }

    #[test]
    fn what_leads_nowhere_is_not_added() {
        let mut union = Union::default();
        let circle = CacheConfig { layers: vec![layer("a", 1), layer("b", 0)], records: Vec::new() };
        union.add(circle, HashMap::new()).unwrap_err();
        let astray = CacheConfig { layers: Vec::new(), records: vec![record("r", None, &[3])] };
        union.add(astray, HashMap::new()).unwrap_err();
        assert_eq!(union.finish().0, CacheConfig::default());
    }
}
