//! The objects that `kubectl kustomize` makes of a folder of `deploy/overlays`.
#![expect(clippy::disallowed_methods, reason = "kubectl builds the manifests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The folders of `deploy/overlays`, with the mode and whether fairlead carries packets between nodes.
pub const OVERLAYS: [(&str, &str, bool); 6] = [
    ("nft", "nft", false),
    ("nft-overlay", "nft", true),
    ("iptables", "iptables", false),
    ("iptables-overlay", "iptables", true),
    ("ipvs", "ipvs", false),
    ("ipvs-overlay", "ipvs", true),
];

/// The top of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file below `target/tools`, where `cargo verify` puts what tests need and Debian does not install as it is.
///
/// # Panics
/// If it is not there.
pub fn tool(path: &str) -> PathBuf {
    let file = root().join("target/tools").join(path);
    assert!(file.is_file(), "{} is missing; `cargo verify machine` puts it there", file.display());
    file
}

/// What Debian's `kubectl` makes of a folder, as text.
pub fn built(overlay: &str) -> String {
    built_by(&tool("kubernetes-client/usr/bin/kubectl"), overlay)
}

/// The same with another `kubectl`.
pub fn built_by(kubectl: &Path, overlay: &str) -> String {
    built_in(kubectl, &root().join("deploy/overlays").join(overlay))
}

/// What it makes of any folder.
pub fn built_in(kubectl: &Path, folder: &Path) -> String {
    let output = Command::new(kubectl).arg("kustomize").arg(folder).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {}: {said}", kubectl.display(), folder.display());
    String::from_utf8(output.stdout).unwrap()
}

/// The objects of a text, by kind and name.
pub fn objects(text: &str) -> BTreeMap<(String, String), Value> {
    let word = |object: &Value, path: &str| object.pointer(path).unwrap().as_str().unwrap().to_owned();
    let documents = text.split("\n---\n").map(|text| serde_saphyr::from_str::<Value>(text).unwrap());
    documents.map(|object| ((word(&object, "/kind"), word(&object, "/metadata/name")), object)).collect()
}

/// The objects of one folder.
pub struct Rendered {
    objects: BTreeMap<(String, String), Value>,
}

impl Rendered {
    pub fn new(overlay: &str) -> Self {
        Self::of(&built(overlay))
    }

    /// Objects from elsewhere, a DaemonSet among them.
    pub fn of(text: &str) -> Self {
        Self { objects: objects(text) }
    }

    pub fn get(&self, kind: &str, name: &str) -> &Value {
        &self.objects[&(kind.to_owned(), name.to_owned())]
    }

    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |((of, _), _)| of == kind).map(|(_, object)| object)
    }

    /// `spec.template.spec` of the DaemonSet.
    pub fn pod(&self) -> &Value {
        let set = self.of_kind("DaemonSet").next().expect("there is a DaemonSet");
        &set["spec"]["template"]["spec"]
    }

    /// The container that does the job.
    pub fn container(&self) -> &Value {
        &self.pod()["containers"][0]
    }

    /// The one that runs before it.
    pub fn init_container(&self) -> &Value {
        &self.pod()["initContainers"][0]
    }

    /// What a volume made of ConfigMaps holds, by file name.
    pub fn files(&self, volume: &str) -> BTreeMap<String, String> {
        let volumes = self.pod()["volumes"].as_array().unwrap();
        let volume = volumes.iter().find(|candidate| candidate["name"] == volume).unwrap();
        let projected = volume["projected"]["sources"].as_array().cloned().unwrap_or_else(|| vec![volume.clone()]);
        let names = projected.iter().filter_map(|source| source["configMap"]["name"].as_str());
        let maps = names.map(|name| self.get("ConfigMap", name));
        let entries = maps.flat_map(|map| map["data"].as_object().unwrap());
        entries.map(|(name, text)| (name.clone(), text.as_str().unwrap().to_owned())).collect()
    }
}

/// The command, if there is one, and the arguments of a container, with `$(NAME)` put in as kubelet does.
pub fn arguments(container: &Value, environment: &[(&str, &str)]) -> Vec<String> {
    let known = container["env"].as_array().unwrap();
    let put_in = |text: &str| {
        environment.iter().fold(text.to_owned(), |text, (name, value)| {
            if text.contains(&format!("$({name})")) {
                assert!(known.iter().any(|variable| variable["name"] == *name), "{name} is not in `env`");
            }
            text.replace(&format!("$({name})"), value)
        })
    };
    let words = ["command", "args"].into_iter().flat_map(|field| container[field].as_array().into_iter().flatten());
    let all: Vec<String> = words.map(|word| put_in(word.as_str().unwrap())).collect();
    assert!(all.iter().all(|word| !word.contains("$(")), "{all:?}");
    all
}
