//! Flows that are under way while their Service changes.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use fairlead_lab::objects::Slice;
use fairlead_lab::{Conversation, Options, Outcome};
use fairlead_plan::{Family, Protocol};

use super::programs::{self, Mode, in_every_mode};
use super::scenario::{Objects, Stack, To};
use super::stage::Stage;
use super::web::{NODE_PORT, PORT, web, web_behind_balancer, with_ready};

const WEB: To = To::Cluster(1, PORT);

/// How long a flow may take to follow; it is heard of by nobody, so the test asks again and again.
const PATIENCE: Duration = Duration::from_secs(10);

/// One port for all conversations: each has a client of its own or comes after the other.
const SOURCE_PORT: u16 = 10_000;

fn stage(mode: Mode, family: Family) -> Option<Stage> {
    super::stage(mode, family).map(|mut stage| {
        stage.restart(programs::with_flows(mode, &stage.lab));
        stage
    })
}

fn open(stage: &Stage, client: &str, protocol: Protocol, to: To) -> Conversation {
    let options = Options { source_port: SOURCE_PORT, patience: Duration::from_millis(300), ..Options::default() };
    let to: SocketAddr = to.address(&stage.lab, stage.family);
    Conversation::open(stage.lab.place(client), protocol, to, &options).expect("the conversation begins")
}

/// Asks until the answer is this.
fn becomes(conversation: &mut Conversation, what: &str, wanted: impl Fn(&Outcome) -> bool) {
    let began = Instant::now();
    loop {
        let outcome = conversation.ask();
        if wanted(&outcome) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: still {outcome:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn is(name: &str) -> impl Fn(&Outcome) -> bool {
    move |outcome| matches!(outcome, Outcome::Reached { endpoint, .. } if endpoint == name)
}

fn a_udp_flow_moves_when_its_endpoint_is_replaced_whatever_way_it_came(mode: Mode) {
    let local = || web_behind_balancer().internal_local();
    let ways = [
        ("a2", WEB, web_behind_balancer(), "b1"),
        ("a", WEB, web_behind_balancer(), "b1"),
        ("outside", To::Place("a", NODE_PORT), web_behind_balancer(), "b1"),
        ("outside", To::External(1, PORT), web_behind_balancer(), "b1"),
        ("a2", WEB, local(), "a3"),
    ];
    for family in Family::BOTH {
        let Some(mut stage) = stage(mode, family) else { return };
        for (client, to, service, second) in &ways {
            stage.apply(&with_ready(service.clone(), &["a1"]), Stack::Single);
            let mut conversation = open(&stage, client, Protocol::Udp, *to);
            becomes(&mut conversation, client, is("a1"));
            stage.apply(&with_ready(service.clone(), &[second]), Stack::Single);
            becomes(&mut conversation, client, is(second));
        }
    }
}

fn a_udp_flow_follows_a_changed_target_port(mode: Mode) {
    for family in Family::BOTH {
        let Some(mut stage) = stage(mode, family) else { return };
        stage.apply(&with_ready(web(), &["a1"]), Stack::Single);
        let mut conversation = open(&stage, "a2", Protocol::Udp, WEB);
        becomes(&mut conversation, "before", is("a1"));
        let slice = Slice::of("web").tcp("http", 8080).udp("quic", 8081).ready(&["a1"]);
        stage.apply(&Objects::new().service(web()).slice(slice), Stack::Single);
        becomes(&mut conversation, "after", is("a1:8081"));
    }
}

fn a_udp_flow_ends_with_its_last_endpoint_or_service_and_begins_again_with_the_next(mode: Mode) {
    for family in Family::BOTH {
        let Some(mut stage) = stage(mode, family) else { return };
        stage.apply(&with_ready(web(), &[]), Stack::Single);
        let mut conversation = open(&stage, "a2", Protocol::Udp, WEB);
        becomes(&mut conversation, "no endpoint yet", |outcome| *outcome == Outcome::Refused);
        stage.apply(&with_ready(web(), &["a1"]), Stack::Single);
        becomes(&mut conversation, "the first endpoint", is("a1"));
        stage.apply(&with_ready(web(), &[]), Stack::Single);
        becomes(&mut conversation, "no endpoint any more", |outcome| *outcome == Outcome::Refused);
        stage.apply(&with_ready(web(), &["b1"]), Stack::Single);
        becomes(&mut conversation, "another endpoint", is("b1"));
        stage.apply(&Objects::new(), Stack::Single);
        becomes(&mut conversation, "no service any more", |outcome| *outcome == Outcome::Silence);
        stage.apply(&with_ready(web(), &["a3"]), Stack::Single);
        becomes(&mut conversation, "the service is back", is("a3"));
    }
}

fn a_flow_that_is_right_is_left_alone(mode: Mode) {
    /// Without affinity a flow that was cut off would meet the same of five endpoints so many times in a row never.
    const CHANGES: usize = 12;
    let all = ["a1", "a2", "a3", "b1", "b2"];
    for family in Family::BOTH {
        let Some(mut stage) = stage(mode, family) else { return };
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            stage.apply(&with_ready(web(), &all), Stack::Single);
            let mut conversation = open(&stage, "outside", protocol, WEB);
            let first = conversation.ask();
            let Outcome::Reached { endpoint, .. } = &first else { panic!("{protocol}: {first:?}") };
            let others: Vec<_> = all.into_iter().filter(|name| *name != endpoint.as_str()).collect();
            for change in 0..CHANGES {
                let kept = [endpoint, others[change % others.len()]];
                stage.apply(&with_ready(web(), &kept), Stack::Single);
                assert_eq!(conversation.ask(), first, "{protocol}");
                stage.apply(&with_ready(web(), &all), Stack::Single);
                assert_eq!(conversation.ask(), first, "{protocol}");
            }
        }
    }
}

fn a_tcp_connection_outlives_its_endpoint_and_its_service(mode: Mode) {
    for family in Family::BOTH {
        let Some(mut stage) = stage(mode, family) else { return };
        for (client, to) in [("a2", WEB), ("outside", To::Place("a", NODE_PORT)), ("outside", To::External(1, PORT))] {
            stage.apply(&with_ready(web_behind_balancer(), &["a1"]), Stack::Single);
            let mut conversation = open(&stage, client, Protocol::Tcp, to);
            let first = conversation.ask();
            assert!(is("a1")(&first), "{client}: {first:?}");
            stage.apply(&with_ready(web_behind_balancer(), &["b1"]), Stack::Single);
            assert_eq!(conversation.ask(), first, "{client}, without its endpoint");
            stage.apply(&Objects::new(), Stack::Single);
            assert_eq!(conversation.ask(), first, "{client}, without its service");
            // The next of these tests uses the same port.
            drop(conversation);
        }
    }
}

fn an_answer_that_conntrack_cannot_place_does_not_break_the_connection(mode: Mode) {
    for family in Family::BOTH {
        let Some(mut stage) = stage(mode, family) else { return };
        stage.apply(&with_ready(web(), &["b1"]), Stack::Single);
        let mut conversation = open(&stage, "a2", Protocol::Tcp, WEB);
        assert!(is("b1")(&conversation.ask()));
        // For a while the endpoint's data comes with a sequence number far out of the window.
        let endpoint = stage.lab.place("b1");
        nft(endpoint, "add table inet astray");
        nft(endpoint, "add chain inet astray out { type filter hook output priority 0; }");
        nft(endpoint, "add rule inet astray out tcp sport 8080 tcp flags & psh == psh tcp sequence set 0x12345678");
        let lost = conversation.ask();
        assert_eq!(lost, Outcome::Silence, "the answer went astray, and nothing else happened");
        nft(endpoint, "delete table inet astray");
        becomes(&mut conversation, "after answers went astray", is("b1"));
    }
}

fn nft(place: &fairlead_lab::Place, line: &str) {
    let status = place.command("nft").arg(line).status().expect("nft runs");
    assert!(status.success(), "{}: nft {line}", place.name());
}

in_every_mode! {
    a_udp_flow_moves_when_its_endpoint_is_replaced_whatever_way_it_came
    a_udp_flow_follows_a_changed_target_port
    a_udp_flow_ends_with_its_last_endpoint_or_service_and_begins_again_with_the_next
    a_flow_that_is_right_is_left_alone
    a_tcp_connection_outlives_its_endpoint_and_its_service
    an_answer_that_conntrack_cannot_place_does_not_break_the_connection
}
