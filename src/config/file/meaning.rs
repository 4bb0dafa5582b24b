//! Which fields and flags of kube-proxy mean nothing here, and why.

use std::path::Path;

use serde_json::Value;

use super::decode::{get, leaves};
use super::kube_proxy::KubeProxyConfiguration;

/// The gate that has a meaning.
const EXTERNAL_IPS: &str = "AllowServiceExternalIPs";

const WINDOWS: &str = "for Windows";
const JSON: &str = "fairlead asks for JSON";
const NO_LIMIT: &str = "fairlead holds four watches and limits its Events itself";
const UNBUFFERED: &str = "logs are written to standard error without buffers";

/// Fields, or sections, and why they have no effect.
const FIELDS: &[(&str, &str)] = &[
    ("clientConnection.acceptContentTypes", JSON),
    ("clientConnection.contentType", JSON),
    ("clientConnection.qps", NO_LIMIT),
    ("clientConnection.burst", NO_LIMIT),
    ("configSyncPeriod", "the kernel is compared every hour, and at once when it was changed"),
    ("enableProfiling", "fairlead has no Go profiles"),
    ("logging.flushFrequency", UNBUFFERED),
    ("logging.options", UNBUFFERED),
    ("logging.vmodule", "RUST_LOG does it"),
    ("portRange", "kube-proxy does not use it either"),
    ("showHiddenMetricsForVersion", "fairlead hides no metrics"),
    ("windowsRunAsService", WINDOWS),
    ("winkernel", WINDOWS),
];

/// Flags by the name of their field, as they are written, and why they have no effect.
const FLAGS: &[(&str, &str, &str)] = &[
    ("boot_id_file", "--boot-id-file", "fairlead does not use it"),
    ("machine_id_file", "--machine-id-file", "fairlead does not use it"),
    ("kube_api_content_type", "--kube-api-content-type", JSON),
    ("profiling", "--profiling", "fairlead has no Go profiles"),
    ("show_hidden_metrics_for_version", "--show-hidden-metrics-for-version", "fairlead hides no metrics"),
    ("vmodule", "--vmodule", "RUST_LOG does it"),
    ("log_flush_frequency", "--log-flush-frequency", UNBUFFERED),
    ("log_text_split_stream", "--log-text-split-stream", UNBUFFERED),
    ("log_text_info_buffer_size", "--log-text-info-buffer-size", UNBUFFERED),
    ("log_json_split_stream", "--log-json-split-stream", UNBUFFERED),
    ("log_json_info_buffer_size", "--log-json-info-buffer-size", UNBUFFERED),
];

/// Flags that count beside `--config`, by the name of their field: kube-proxy's, and fairlead's own.
const BESIDE_A_FILE: &[&str] = &[
    "config",
    "write_config_to",
    "init_only",
    "cleanup",
    "master",
    "hostname_override",
    "socket",
    "logging_format",
    "verbosity",
    "manifests",
    "iptables_variant",
    "service_counters",
];

/// Fields that are written, differ from kube-proxy's default and mean nothing here; as one line.
pub(super) fn fields_without_effect(path: &Path, given: &Value) -> Option<String> {
    let default = serde_json::to_value(KubeProxyConfiguration::default().defaulted()).unwrap_or_default();
    let said = |field: &str, why: &str| {
        let value = get(given, field)?;
        let set = leaves(value).into_iter().any(|(below, value)| {
            let whole = if below.is_empty() { field.to_owned() } else { format!("{field}.{below}") };
            !is_zero(value) && get(&default, &whole).is_none_or(|default| !same(default, value))
        });
        set.then(|| format!("{field} ({why})"))
    };
    let mut all: Vec<String> = FIELDS.iter().filter_map(|(field, why)| said(field, why)).collect();
    let gates = given["featureGates"].as_object().into_iter().flatten();
    let unknown = gates.map(|(gate, _)| gate).filter(|gate| *gate != EXTERNAL_IPS);
    all.extend(unknown.map(|gate| format!("featureGates.{gate} (fairlead has no such gate)")));
    (!all.is_empty()).then(|| format!("{}: no effect in fairlead have {}", path.display(), all.join(", ")))
}

/// Numbers are equal however they are written.
fn same(one: &Value, other: &Value) -> bool {
    one == other || one.as_f64().is_some_and(|one| other.as_f64() == Some(one))
}

/// What Go writes for a field that nobody has set.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => matches!(text.as_str(), "" | "0" | "0s"),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Flags that were given and mean nothing here; as one line. `given` is asked by the name of the flag's field.
pub(in crate::config) fn without_effect(feature_gates: &str, given: &dyn Fn(&str) -> bool) -> Option<String> {
    let flags = FLAGS.iter().filter(|(field, _, _)| given(field)).map(|(_, flag, why)| format!("{flag} ({why})"));
    let gates = feature_gates.split(',').filter_map(|gate| gate.split_once('=')).map(|(gate, _)| gate.trim());
    let gates = gates.filter(|gate| *gate != EXTERNAL_IPS && given("feature_gates"));
    let gates = gates.map(|gate| format!("--feature-gates={gate} (fairlead has no such gate)"));
    let all: Vec<String> = flags.chain(gates).collect();
    (!all.is_empty()).then(|| format!("no effect in fairlead have {}", all.join(", ")))
}

/// Flags of kube-proxy that were given beside `--config` and do not count, from all that were given; as one line.
pub(in crate::config) fn ignored_beside_a_file(given: &[(String, String)]) -> Option<String> {
    let counts = |field: &str| BESIDE_A_FILE.contains(&field) || super::fairlead::is_own(field);
    let ignored: Vec<&str> = given.iter().filter(|(field, _)| !counts(field)).map(|(_, flag)| flag.as_str()).collect();
    (!ignored.is_empty()).then(|| {
        format!(
            "{} do not count because --config is given, as in kube-proxy; write them in the file",
            ignored.join(", ")
        )
    })
}
