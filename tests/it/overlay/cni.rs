//! The files by which pods get addresses.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use super::stage::{Stage, can_run, run};
use crate::program::eventually;

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn conflist_and_subnet_env_follow_prefix_and_mtu_and_come_back() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let directory = stage.directory.path();
    let (conf, env) = (directory.join("net.d/10-fairlead.conflist"), directory.join("run/subnet.env"));
    let flags = [
        "--overlay-backend=vxlan".to_owned(),
        format!("--cni-conf-dir={}", directory.join("net.d").display()),
        format!("--subnet-file={}", env.display()),
    ];
    let _program = stage.launch("a", &flags.each_ref().map(String::as_str));
    let mtu = || serde_json::from_str::<Value>(&read(&conf)).ok().and_then(|value| value["plugins"][0]["mtu"].as_u64());
    // The smaller of the two tunnels counts: 1,500 less 70.
    eventually("both files are there", || mtu() == Some(1430) && read(&env).contains("FLANNEL_MTU=1430\n"));
    for line in
        ["FLANNEL_NETWORK=10.244.0.0/16", "FLANNEL_SUBNET=10.244.1.1/24", "FLANNEL_IPV6_SUBNET=fd00:244:0:1::1/64"]
    {
        assert!(read(&env).lines().any(|other| other == line), "{line} is not in {}", read(&env));
    }
    for path in [&conf, &env] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    }
    run(stage.node("a"), "ip link set eth0 mtu 1450");
    eventually("both follow the MTU", || mtu() == Some(1380) && read(&env).contains("FLANNEL_MTU=1380\n"));
    fs::remove_file(&conf).unwrap();
    eventually("a deleted file comes back", || mtu() == Some(1380));
}

#[test]
fn a_file_that_fairlead_did_not_write_stays_as_it_is() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let directory = stage.directory.path();
    let foreign = "FLANNEL_NETWORK=10.0.0.0/8\n";
    let env = stage.directory.write("subnet.env", foreign);
    let conf = stage.directory.write("10-fairlead.conflist", r#"{"name": "mine", "plugins": []}"#);
    let flags = [
        "--overlay-backend=vxlan".to_owned(),
        format!("--cni-conf-dir={}", directory.display()),
        format!("--subnet-file={}", env.display()),
    ];
    let program = stage.launch("a", &flags.each_ref().map(String::as_str));
    for name in ["subnet.env", "10-fairlead.conflist"] {
        program.wait_for_line(&[name, "was not written by fairlead and stays as it is"]);
    }
    assert_eq!(read(&env), foreign);
    assert_eq!(read(&conf), r#"{"name": "mine", "plugins": []}"#);
    fs::remove_file(&env).unwrap();
    eventually("it is fairlead's once the other is gone", || read(&env).contains("FLANNEL_MTU=1430\n"));
}
