//! Flags that say what to do with the configuration as a whole, and flags that are there because kube-proxy has them.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::flags::boolean;

#[derive(Debug, Args)]
pub(super) struct FileFlags {
    /// File of settings: a KubeProxyConfiguration and, behind a line of ---, a FairleadConfiguration. Of kube-proxy's flags only
    /// --master, --hostname-override and those for logs count beside it; fairlead's own are stronger than the file. It is
    /// watched: what changes in it is applied at once
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub(super) config: String,
    /// Write all settings to this file as --config reads them, then exit
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub(super) write_config_to: String,
    /// Set what needs more privilege than CAP_NET_ADMIN (limits of connection tracking, forwarding for an overlay), then exit
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", hide_default_value = true, action = ArgAction::Set)]
    pub(super) init_only: bool,
    /// As the command cleanup
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", hide_default_value = true, action = ArgAction::Set)]
    pub(super) cleanup: bool,
}

/// kube-proxy's flags that mean little or nothing here. [`super::file::without_effect`] says which were given.
#[derive(Debug, Args)]
pub(super) struct AcceptedFlags {
    /// Of kube-proxy's gates AllowServiceExternalIPs alone has a meaning here
    #[arg(long, value_name = "NAME=BOOL,...", default_value = "", hide_default_value = true)]
    pub(super) feature_gates: String,
    /// Whether TCP node ports also answer on 127.0.0.1 and ::1, in mode iptables; as localhost in --nodeport-addresses
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", action = ArgAction::Set)]
    pub(super) iptables_localhost_nodeports: Option<bool>,
    /// Port of /healthz if --healthz-bind-address names none; 0 for nowhere
    #[arg(long, value_name = "PORT", default_value_t = 10_256, hide_default_value = true)]
    pub(super) healthz_port: u16,
    /// Port of /metrics if --metrics-bind-address names none; 0 for nowhere
    #[arg(long, value_name = "PORT", default_value_t = 10_249, hide_default_value = true)]
    pub(super) metrics_port: u16,
    #[arg(long, value_name = "TYPE", default_value = "", hide = true)]
    pub(super) kube_api_content_type: String,
    #[arg(long, value_parser = boolean, num_args = 0..=1, require_equals = true, hide = true)]
    #[arg(default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub(super) profiling: bool,
    #[arg(long, value_name = "VERSION", default_value = "", hide = true)]
    pub(super) show_hidden_metrics_for_version: String,
    #[arg(long, value_name = "PATTERN=N,...", default_value = "", hide = true)]
    pub(super) vmodule: String,
    #[arg(long, value_name = "DURATION", default_value = "", hide = true)]
    pub(super) log_flush_frequency: String,
    #[arg(long, value_parser = boolean, num_args = 0..=1, require_equals = true, hide = true)]
    #[arg(default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub(super) log_text_split_stream: bool,
    #[arg(long, value_name = "BYTES", default_value = "", hide = true)]
    pub(super) log_text_info_buffer_size: String,
    #[arg(long, value_parser = boolean, num_args = 0..=1, require_equals = true, hide = true)]
    #[arg(default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub(super) log_json_split_stream: bool,
    #[arg(long, value_name = "BYTES", default_value = "", hide = true)]
    pub(super) log_json_info_buffer_size: String,
    #[arg(long, value_name = "FILE", hide = true)]
    pub(super) boot_id_file: Option<PathBuf>,
    #[arg(long, value_name = "FILE", hide = true)]
    pub(super) machine_id_file: Option<PathBuf>,
}
