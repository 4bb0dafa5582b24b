//! The container image: what the layout says of itself, and the program inside.
#![expect(clippy::disallowed_methods, reason = "programs of the system unpack the image and enter it")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fairlead_lab::{Feature, needs};
use serde_json::Value;

use super::deploy::rendered::root;
use crate::program::{BINARY, Directory};

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).env("NO_COLOR", "1").output().unwrap()
}

/// What a program prints.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(file: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

/// The file of a descriptor, once its digest and size were compared with what another program says.
fn blob(layout: &Path, descriptor: &Value, seen: &mut BTreeSet<String>) -> PathBuf {
    let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
    let file = layout.join("blobs/sha256").join(&digest);
    assert_eq!(said("sha256sum", &[file.to_str().unwrap()]).split(' ').next().unwrap(), digest);
    assert_eq!(fs::metadata(&file).unwrap().len(), descriptor["size"].as_u64().unwrap());
    seen.insert(digest);
    file
}

/// The files below a folder, as paths in the image.
fn files(folder: &Path) -> BTreeSet<String> {
    let list = said("find", &[folder.to_str().unwrap(), "!", "-type", "d", "-printf", "/%P\n"]);
    list.lines().map(str::to_owned).collect()
}

#[test]
fn the_layout_is_what_its_digests_say_and_the_program_runs_in_it() {
    if !needs(&[Feature::Deployment]) {
        return;
    }
    let directory = Directory::new();
    let (layout, inside) = (directory.path().join("layout"), directory.path().join("inside"));
    let image = fairlead_image::write(Path::new(BINARY), "1.2.3", &layout).unwrap();
    assert_eq!(json(&layout.join("oci-layout"))["imageLayoutVersion"], "1.0.0");
    let index = json(&layout.join("index.json"));
    let [entry] = index["manifests"].as_array().unwrap().as_slice() else { panic!("{index}") };
    assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "1.2.3");
    assert_eq!(entry["digest"], image.digest);
    let mut seen = BTreeSet::new();
    let manifest = json(&blob(&layout, entry, &mut seen));
    let config = json(&blob(&layout, &manifest["config"], &mut seen));
    let layers = manifest["layers"].as_array().unwrap();
    // Layers are not compressed, so their digests are those of their contents.
    let digests: Vec<_> = layers.iter().map(|layer| &layer["digest"]).collect();
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().iter().collect::<Vec<_>>(), digests);
    fs::create_dir(&inside).unwrap();
    for layer in layers {
        let file = blob(&layout, layer, &mut seen);
        said("tar", &["--extract", "--file", file.to_str().unwrap(), "--directory", inside.to_str().unwrap()]);
    }
    let there = fs::read_dir(layout.join("blobs/sha256")).unwrap();
    let there: BTreeSet<_> = there.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(there, seen, "no blob that nothing names");
    // What the loader of this machine says that the program needs, and the program.
    let wanted = said("ldd", &[BINARY]);
    let paths = wanted.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned);
    let names = ["/usr/bin/fairlead", "/usr/local/bin/kube-proxy"].map(str::to_owned);
    assert_eq!(files(&inside), paths.chain(names).collect());
    assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/usr/bin/fairlead"]));
    let inside_text = inside.to_str().unwrap();
    for name in ["/usr/bin/fairlead", "/usr/local/bin/kube-proxy"] {
        let version = said("chroot", &[inside_text, name, "--version"]);
        assert_eq!(version, format!("fairlead {}\n", env!("CARGO_PKG_VERSION")), "{name}");
    }
    fs::write(inside.join("web.yaml"), WEB).unwrap();
    let flags = ["/usr/bin/fairlead", "render", "-f", "/web.yaml", "--hostname-override=n"];
    let rules = said("chroot", &[&[inside_text], flags.as_slice()].concat());
    assert!(rules.contains("10.96.0.10") && rules.contains("10.244.1.5"), "{rules}");
}

const WEB: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.10, clusterIPs: [10.96.0.10], ipFamilies: [IPv4], ports: [{name: a, port: 80, protocol: TCP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: a, port: 8080, protocol: TCP}]
endpoints: [{addresses: [10.244.1.5], conditions: {ready: true}}]
";

#[test]
fn the_same_program_gives_the_same_bytes_and_the_copied_files_are_those_of_the_layers() {
    if !needs(&[Feature::Deployment]) {
        return;
    }
    let directory = Directory::new();
    // A small program that needs libraries, with another time of change in the second image.
    let program = directory.path().join("program");
    fs::copy("/bin/true", &program).unwrap();
    let folders = ["one", "two"].map(|name| directory.path().join(name));
    let mut images = Vec::new();
    for (folder, time) in folders.iter().zip(["2001-01-01", "2026-11-21"]) {
        said("touch", &["--date", time, program.to_str().unwrap()]);
        images.push(fairlead_image::write(&program, "1", folder).unwrap());
    }
    assert_eq!(images[0], images[1]);
    said("diff", &["-r", folders[0].to_str().unwrap(), folders[1].to_str().unwrap()]);
    let copied = directory.path().join("copied");
    assert_eq!(fairlead_image::copy(&program, &copied).unwrap().len(), images[0].files.len());
    assert_eq!(files(&copied), images[0].files.iter().map(|path| path.display().to_string()).collect());
    // A folder with something else in it is left alone.
    let refused = fairlead_image::write(&program, "1", &copied).unwrap_err().to_string();
    assert!(refused.contains("no OCI layout"), "{refused}");
}

#[test]
fn the_dockerfile_makes_the_same_of_the_same_files() {
    let dockerfile = fs::read_to_string(root().join("deploy/Dockerfile")).unwrap();
    for line in
        ["RUN cargo image --files /files", "FROM scratch", "ENTRYPOINT [\"/usr/bin/fairlead\"]", "ENV PATH=/usr/bin"]
    {
        assert!(dockerfile.lines().any(|of| of == line), "{line}");
    }
    // The compiler of the first stage is the oldest that the project is for.
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(dockerfile.contains(&format!("FROM rust:{version}-bookworm AS build\n")), "{version}");
    let known = ["FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "ENTRYPOINT"];
    for line in dockerfile.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        assert!(known.contains(&line.split(' ').next().unwrap()), "{line}");
    }
    let copied: Vec<_> = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")).collect();
    assert_eq!(copied, [". .", "--from=build /files /"], "from the repository, and from the first stage alone");
}
