//! The status page, in a browser.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Stdio;

use fairlead_lab::{Feature, Place, needs};
use fairlead_plan::Family;
use serde_json::json;

use crate::faults::service;
use crate::program::{Cluster, Directory, HEALTH_PORT, METRICS_PORT, eventually, http_get};

const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
/// Where a script of the page would have left its mark.
const HOSTILE: &str =
    "</td></table><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">";
/// The flags with which both ports answer in both families.
const EVERYWHERE: [&str; 2] = ["--healthz-bind-address=[::]:10256", "--metrics-bind-address=[::]:10249"];

fn can_run() -> bool {
    needs(&[Feature::Namespaces, Feature::NfTables, Feature::Browser])
}

/// What Chromium has made of a page, as it would write it itself.
fn browse(place: &Place, directory: &Directory, url: &str) -> String {
    let mut command = place.command("chromium");
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"]);
    command.arg(format!("--user-data-dir={}", directory.path().join("browser").display()));
    command.env("HOME", directory.path()).arg(url).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_browser_on_the_node_shows_what_status_and_services_say() {
    if !can_run() {
        return;
    }
    let cluster = Cluster::new();
    cluster.serve("web", 1, &["a1", "b1"]);
    cluster.serve("empty", 2, &[]);
    let program = cluster.launch(&EVERYWHERE);
    program.wait_until_ready();
    let services = [("web", "2 (1 here)"), ("empty", "none")];
    for (ip, port) in LOOPBACKS.into_iter().flat_map(|ip| [HEALTH_PORT, METRICS_PORT].map(|port| (ip, port))) {
        let url = format!("http://{}/", SocketAddr::new(ip, port));
        let page = browse(cluster.node(), &cluster.directory, &url);
        for part in ["<title>fairlead on a</title>", ">All is well.<", ">nftables<", ">8 service ports.<"] {
            assert!(page.contains(part), "{url}: {part} in {page}");
        }
        for (name, endpoints) in services {
            let rows: Vec<_> = page.split("<tr>").filter(|row| row.contains(&format!("default/{name}:"))).collect();
            assert_eq!(rows.len(), 4, "{url}: two ports in two families of {name}: {page}");
            assert!(rows.iter().all(|row| row.contains(&format!("<td>{endpoints}"))), "{url}: {rows:?}");
        }
    }
    let url = format!("http://127.0.0.1:{METRICS_PORT}/status?service=empty&empty=1");
    let page = browse(cluster.node(), &cluster.directory, &url);
    assert!(page.contains(">4 service ports.<") && !page.contains("default/web"), "{page}");
}

#[test]
fn names_of_others_put_no_script_into_a_browser() {
    if !can_run() {
        return;
    }
    let cluster = Cluster::new();
    let mut hostile = service("web", 1).manifest(&cluster.lab, &Family::BOTH);
    // An API server refuses such a name; a directory of files need not, nor an annotation.
    for port in hostile["spec"]["ports"].as_array_mut().unwrap() {
        port["name"] = json!(format!("{}{HOSTILE}", port["name"].as_str().unwrap()));
    }
    hostile["metadata"]["annotations"] = json!({"fairlead.io/ipvs-scheduler": HOSTILE, HOSTILE: HOSTILE});
    cluster.apply([hostile]);
    let program = cluster.launch(&[]);
    program.wait_until_ready();
    let page = browse(cluster.node(), &cluster.directory, &format!("http://127.0.0.1:{METRICS_PORT}/"));
    assert!(page.contains("<title>fairlead on a</title>"), "{page}");
    assert!(page.contains("&lt;script&gt;"), "the name is shown as it is: {page}");
    for element in ["<script", "<img"] {
        assert!(!page.contains(element), "{element} in {page}");
    }
}

#[test]
fn others_than_the_node_do_not_see_the_page() {
    if !needs(&[Feature::Namespaces, Feature::NfTables]) {
        return;
    }
    let cluster = Cluster::new();
    cluster.serve("web", 1, &["a1"]);
    let program = cluster.launch(&EVERYWHERE);
    program.wait_until_ready();
    for family in Family::BOTH {
        let node = cluster.node().addr(family);
        for from in ["a1", "b1", "outside"].map(|name| cluster.lab.place(name)) {
            for port in [HEALTH_PORT, METRICS_PORT] {
                let to = SocketAddr::new(node, port);
                eventually("health answers", || from.run(|| http_get(to, "/healthz")).is_ok());
                let (status, body) = from.run(|| http_get(to, "/status")).unwrap();
                assert!(status == 403 && body.contains("127.0.0.1"), "{}: {to}: {status} {body}", from.name());
            }
        }
        // Nor through an address of its own, because the other side of that could be anybody.
        let (status, _) = cluster.node().run(|| http_get(SocketAddr::new(node, HEALTH_PORT), "/")).unwrap();
        assert_eq!(status, 403);
    }
}
