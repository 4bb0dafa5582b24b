//! The file of `--config`: a KubeProxyConfiguration, and behind it, if wanted, a FairleadConfiguration.
//!
//! What the file says becomes the flags that mean the same, so that there is one set of checks; where one of them fails, the
//! sentence names the field and not the flag. Fields and flags that mean nothing here are said in one line each.

mod decode;
mod fairlead;
mod kube_proxy;
mod meaning;
mod names;
#[cfg(test)]
mod tests;
mod translate;

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

pub use fairlead::{FairleadConfiguration, OverlayConfiguration};
pub use kube_proxy::{
    ClientConnection, Conntrack, DetectLocal, Iptables, Ipvs, KubeProxyConfiguration, Logging, Nftables, Winkernel,
};
pub(super) use meaning::{ignored_beside_a_file, without_effect};

use super::UsageError;
use super::flags::RunFlags;

/// Both documents with all defaults: what `/configz` shows and `--write-config-to` writes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Configuration {
    /// kube-proxy's settings.
    #[serde(rename = "kubeproxy.config.k8s.io")]
    pub kube_proxy: KubeProxyConfiguration,
    /// fairlead's own.
    #[serde(rename = "fairlead.io")]
    pub fairlead: FairleadConfiguration,
}

impl Configuration {
    /// As YAML of two documents, which `--config` reads and kube-proxy, which stops at the first, reads as well.
    ///
    /// # Errors
    /// None that this type can cause.
    pub fn yaml(&self) -> Result<String, serde_saphyr::SerializeError> {
        let (first, second) = (serde_saphyr::to_string(&self.kube_proxy)?, serde_saphyr::to_string(&self.fairlead)?);
        Ok(format!("{}\n---\n{}\n", first.trim_end(), second.trim_end()))
    }
}

/// A file that could be read.
#[derive(Debug, Default)]
pub(super) struct File {
    path: PathBuf,
    /// The first document as it was written.
    given: Value,
    kube_proxy: KubeProxyConfiguration,
    fairlead: FairleadConfiguration,
    /// What is to be logged about it, one sentence each.
    notes: Vec<String>,
}

impl File {
    /// Reads it.
    pub fn read(path: &Path) -> Result<Self, UsageError> {
        let wrong = |why: String| UsageError::value("--config", &path.display().to_string(), why);
        let text = std::fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        Self::parse(path, &text).map_err(wrong)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, String> {
        let mut file = decode::parse(path, text)?;
        file.notes.extend(meaning::fields_without_effect(path, &file.given));
        Ok(file)
    }

    /// Puts what it says into the flags. `given` tells whether the command line has a flag, by the name of its field.
    pub fn apply(&self, flags: &mut RunFlags, given: &dyn Fn(&str) -> bool) -> Result<(), UsageError> {
        translate::into_flags(&self.kube_proxy, flags, given).map_err(|error| self.explain(error))?;
        self.fairlead.apply(flags, given);
        Ok(())
    }

    /// What has to be logged.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// An error about flags as one about this file.
    pub fn explain(&self, error: UsageError) -> UsageError {
        error.renamed(|text| format!("{}: {}", self.path.display(), names::of_fields(text, &self.kube_proxy.mode)))
    }

    /// Both documents with all defaults, as these flags, which it was applied to, make them.
    pub fn configuration(&self, flags: &RunFlags) -> Configuration {
        let mut kube_proxy = self.kube_proxy.clone().defaulted();
        // The flag is stronger.
        kube_proxy.hostname_override.clone_from(&flags.node.hostname_override);
        Configuration { kube_proxy, fairlead: FairleadConfiguration::of(flags) }
    }
}

/// The documents that say what these flags say.
pub(super) fn configuration(flags: &RunFlags) -> Configuration {
    Configuration { kube_proxy: translate::from_flags(flags).defaulted(), fairlead: FairleadConfiguration::of(flags) }
}
