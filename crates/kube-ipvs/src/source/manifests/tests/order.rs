//! The final state does not depend on the order in which files come and go.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proxier::model::ObjectId;

use super::*;

/// The state as the receiver of the events sees it.
#[derive(Debug, Default, PartialEq, Eq)]
struct World(BTreeMap<ObjectId, Event>);

impl World {
    fn take(&mut self, changes: Changes) {
        for event in changes.events {
            let key = event.object();
            match event {
                Event::ServiceRemoved(_)
                | Event::SliceRemoved(_)
                | Event::NodeRemoved(_)
                | Event::ServiceCidrRemoved(_) => {
                    assert!(self.0.remove(&key).is_some(), "{key:?} is removed and never was");
                }
                event => {
                    assert_ne!(self.0.get(&key), Some(&event), "{key:?} is delivered again");
                    self.0.insert(key, event);
                }
            }
        }
    }
}

/// Documents share few names, so that they collide.
fn document() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b"]);
    let service =
        (name.clone(), 1..4u8, prop::sample::select(vec!["{}", "{app: x}"])).prop_map(|(name, ip, selector)| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
             spec: {{clusterIP: 10.96.0.{ip}, selector: {selector}, ports: [{{port: 80}}]}}\n"
            )
        });
    let endpoints = (name.clone(), 1..4u8).prop_map(|(name, ip)| {
        format!(
            "apiVersion: v1\nkind: Endpoints\nmetadata: {{name: {name}}}\n\
             subsets: [{{addresses: [{{ip: 10.0.0.{ip}}}], ports: [{{port: 80}}]}}]\n"
        )
    });
    let cidr = (name.clone(), 1..4u8).prop_map(|(name, net)| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {{name: {name}}}\n\
             spec: {{cidrs: [10.{net}.0.0/16]}}\n"
        )
    });
    let slice = (name, 1..4u8).prop_map(|(name, ip)| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}\n\
             addressType: IPv4\nports: [{{port: 80}}]\nendpoints: [{{addresses: [10.0.1.{ip}]}}]\n"
        )
    });
    prop_oneof![service, endpoints, slice, cidr]
}

/// `None` deletes the file.
fn content() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        4 => prop::collection::vec(document(), 0..3).prop_map(|documents| Some(documents.join("---\n"))),
        1 => Just(None),
        1 => Just(Some("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 0}]}\n".into())),
    ]
}

fn given(text: &Option<String>) -> Content<'_> {
    text.as_ref().map_or(Content::Gone, |text| Content::Bytes(text.as_bytes()))
}

proptest! {
    #[test]
    fn arbitrary_file_content_causes_no_panic_and_no_partial_result(
        edits in prop::collection::vec((0..GOOD.len(), any::<prop::sample::Index>()), 1..6),
        cut in 0..GOOD.len(),
    ) {
        let alphabet = b"\0\t\n :-[]{}&*!|>'\"%@`#,?<~=0aZ\xff\xc3";
        let mut content = GOOD.as_bytes().to_vec();
        for (place, index) in edits {
            content[place] = alphabet[index.index(alphabet.len())];
        }
        for content in [&content[..], &content[..cut]] {
            let changes = read(content);
            prop_assert!(changes.events.is_empty() || changes.problems.is_empty(), "all or nothing");
        }
    }

    #[test]
    fn final_state_does_not_depend_on_the_order_of_changes(
        steps in prop::collection::vec(
            prop::collection::btree_map(prop::sample::select(vec!["1.yaml", "2.yaml", "3.yaml"]), content(), 1..3),
            1..12,
        )
    ) {
        let (mut folder, mut world) = (Folder::default(), World::default());
        let mut last_good: BTreeMap<&str, Option<String>> = BTreeMap::new();
        for step in &steps {
            world.take(folder.load(step.iter().map(|(name, text)| (*name, given(text)))));
            for (name, text) in step {
                let is_good = read(text.as_deref().unwrap_or_default().as_bytes()).problems.is_empty();
                if text.is_none() || is_good {
                    last_good.insert(name, text.clone());
                }
            }
        }
        let mut fresh = World::default();
        fresh.take(Folder::default().load(last_good.iter().map(|(name, text)| (*name, given(text)))));
        prop_assert_eq!(&world, &fresh);

        // One file at a time, in reverse order.
        let (mut folder, mut one_by_one) = (Folder::default(), World::default());
        for (name, text) in last_good.iter().rev() {
            one_by_one.take(folder.load([(*name, given(text))]));
        }
        prop_assert_eq!(&one_by_one, &fresh);
    }
}
