//! The filter of system calls that a pod gets with `RuntimeDefault`, as container engines ship it, for a runtime.

use std::fs;

use serde_json::{Map, Value, json};

/// The profile of podman and CRI-O, in Debian's golang-github-containers-common; containerd's is the same but for a few calls.
const PROFILE: &str = "/usr/share/containers/seccomp.json";

/// The profile for these capabilities in the form of an OCI runtime.
pub fn runtime_default(capabilities: &[String]) -> Value {
    let profile: Value = serde_json::from_str(&fs::read_to_string(PROFILE).unwrap()).unwrap();
    let of_this_machine =
        |word: &str| word == std::env::consts::ARCH || (word == "amd64" && cfg!(target_arch = "x86_64"));
    let names = |rule: &Value, kind: &str, what: &str| -> Vec<String> {
        let list = rule[kind][what].as_array().into_iter().flatten();
        list.map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let applies = |rule: &&Value| {
        let of = |kind, what| names(rule, kind, what);
        let included = of("includes", "caps").iter().all(|name| capabilities.contains(name))
            && (of("includes", "arches").is_empty()
                || of("includes", "arches").iter().any(|name| of_this_machine(name)));
        let excluded = of("excludes", "caps").iter().any(|name| capabilities.contains(name))
            || of("excludes", "arches").iter().any(|name| of_this_machine(name));
        included && !excluded
    };
    let plain = |rule: &Value| {
        let fields = ["names", "action", "errnoRet"].into_iter().filter(|name| !rule[*name].is_null());
        let mut plain: Map<String, Value> = fields.map(|name| (name.to_owned(), rule[name].clone())).collect();
        // `null` stands for none there.
        plain.insert("args".to_owned(), json!(rule["args"].as_array().cloned().unwrap_or_default()));
        Value::Object(plain)
    };
    let rules: Vec<Value> = profile["syscalls"].as_array().unwrap().iter().filter(applies).map(plain).collect();
    assert!(rules.len() > 1, "{PROFILE} is not understood");
    let architecture = format!("SCMP_ARCH_{}", std::env::consts::ARCH.to_uppercase());
    let mut filter =
        json!({"defaultAction": profile["defaultAction"], "architectures": [architecture], "syscalls": rules});
    if !profile["defaultErrnoRet"].is_null() {
        filter["defaultErrnoRet"] = profile["defaultErrnoRet"].clone();
    }
    filter
}
