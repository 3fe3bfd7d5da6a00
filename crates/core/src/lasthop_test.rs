use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::host::Protocol;

/// Gives one answer after the other, and counts.
struct Script {
    answers: Vec<Vec<&'static str>>,
    asked: AtomicUsize,
}

impl Script {
    fn new(answers: &[&[&'static str]]) -> Arc<Self> {
        Arc::new(Script { answers: answers.iter().map(|answer| answer.to_vec()).collect(), asked: AtomicUsize::new(0) })
    }
}

impl Resolve for Script {
    fn resolve(&self, _: &Name) -> Answer<'_, Vec<IpAddr>> {
        let turn = self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = self.answers.get(turn).or(self.answers.last()).cloned().unwrap_or_default();
        Box::pin(async move { Ok(answer.iter().map(|text| text.parse().unwrap()).collect()) })
    }
}

#[derive(Clone, Copy)]
enum Service {
    Answers,
    Refuses,
    Hangs,
}

/// A network in which every address leads to a local listener or fails as told; remembers what was dialled.
struct Network {
    services: HashMap<IpAddr, Service>,
    dialled: Mutex<Vec<SocketAddr>>,
    listener: SocketAddr,
}

impl Network {
    async fn new(services: &[(&str, Service)]) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(b"hello").await.unwrap();
            }
        });
        let services = services.iter().map(|(text, service)| (text.parse().unwrap(), *service)).collect();
        Arc::new(Network { services, dialled: Mutex::default(), listener: address })
    }

    fn dialled(&self) -> Vec<String> {
        self.dialled.lock().unwrap().iter().map(|address| address.ip().to_string()).collect()
    }
}

impl Connect for Network {
    fn connect(&self, address: SocketAddr) -> Answer<'static, TcpStream> {
        self.dialled.lock().unwrap().push(address);
        let service = self.services.get(&address.ip()).copied().unwrap_or(Service::Answers);
        let listener = self.listener;
        Box::pin(async move {
            match service {
                Service::Answers => TcpStream::connect(listener).await,
                Service::Refuses => Err(io::ErrorKind::ConnectionRefused.into()),
                Service::Hangs => std::future::pending().await,
            }
        })
    }
}

fn destination(host: &str) -> Destination {
    Destination::parse(host, 443, Protocol::Tcp).unwrap()
}

async fn dial(resolver: &Arc<Script>, network: &Arc<Network>, host: &str, allow: &[&str]) -> Result<TcpStream, Code> {
    let hop = LastHop::new(resolver.clone(), network.clone(), Guard::new(["203.0.113.9".parse().unwrap()]));
    let allow: Vec<IpNet> = allow.iter().map(|net| net.parse().unwrap()).collect();
    hop.dial_tcp(&destination(host), &allow).await.result
}

#[tokio::test]
async fn case_53_metadata_addresses_are_refused_after_resolution_unless_spelled_out() {
    for address in ["169.254.169.254", "100.100.100.200", "fd00:ec2::254", "168.63.129.16"] {
        let network = Network::new(&[]).await;
        let answer = [address];
        let resolver = Script::new(&[&answer]);
        assert_eq!(dial(&resolver, &network, "innocent.example", &[]).await.unwrap_err(), Code::AddressForbidden);
        assert_eq!(dial(&resolver, &network, address, &[]).await.unwrap_err(), Code::AddressForbidden);
        assert!(network.dialled().is_empty());
        let net = if address.contains(':') { format!("{address}/128") } else { format!("{address}/32") };
        assert!(dial(&resolver, &network, "innocent.example", &[&net]).await.is_ok());
        assert_eq!(dial(&resolver, &network, "innocent.example", &["198.51.100.0/24"]).await.unwrap_err(), Code::AddressForbidden);
    }
    let network = Network::new(&[]).await;
    let resolver = Script::new(&[&["10.1.2.3"]]);
    assert_eq!(dial(&resolver, &network, "metadata.google.internal", &[]).await.unwrap_err(), Code::AddressForbidden);
    assert_eq!(resolver.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn case_54_own_neighbourhood_is_refused_unless_spelled_out() {
    for host in ["127.0.0.1", "::1", "0.0.0.0", "::", "localhost", "203.0.113.9", "64:ff9b::cb00:7109"] {
        let network = Network::new(&[]).await;
        let resolver = Script::new(&[&["10.1.2.3"]]);
        assert_eq!(dial(&resolver, &network, host, &[]).await.unwrap_err(), Code::AddressForbidden, "{host}");
        assert!(network.dialled().is_empty());
    }
    let network = Network::new(&[]).await;
    let resolver = Script::new(&[&["127.0.0.1"]]);
    assert!(dial(&resolver, &network, "127.0.0.1", &["127.0.0.0/8"]).await.is_ok());
    assert!(dial(&resolver, &network, "localhost", &["127.0.0.0/8"]).await.is_ok());
    assert!(routes_to_self("127.0.0.1".parse().unwrap()));
    assert!(!routes_to_self("192.0.2.1".parse().unwrap()));
}

#[tokio::test]
async fn case_54_exchange_and_relays_are_never_dialled_by_name_or_address() {
    let network = Network::new(&[]).await;
    let resolver = Script::new(&[&["198.51.100.20", "2001:db8::20"], &["198.51.100.20"]]);
    let hop = LastHop::new(resolver.clone(), network.clone(), Guard::default());
    assert!(hop.dial_tcp(&destination("198.51.100.20"), &[]).await.result.is_ok());
    hop.forbid_hosts(vec!["exchange.example".parse().unwrap(), "198.51.100.21".parse().unwrap()]).await;
    for host in ["198.51.100.20", "2001:db8::20", "198.51.100.21", "innocent.example"] {
        assert_eq!(hop.dial_tcp(&destination(host), &[]).await.result.unwrap_err(), Code::AddressForbidden, "{host}");
    }
    assert_eq!(network.dialled().len(), 1);
}

#[tokio::test]
async fn case_54_real_listener_on_loopback_is_never_connected_without_allow() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let hop = LastHop::system(Guard::default());
    let destination = Destination::parse("127.0.0.1", port, Protocol::Tcp).unwrap();
    assert_eq!(hop.dial_tcp(&destination, &[]).await.result.unwrap_err(), Code::AddressForbidden);
    let mut stream = hop.dial_tcp(&destination, &["127.0.0.1/32".parse().unwrap()]).await.result.unwrap();
    let (mut accepted, from) = listener.accept().await.unwrap();
    assert_eq!(from, stream.local_addr().unwrap(), "the first connection to arrive is the allowed one");
    accepted.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn case_56_name_is_resolved_once_and_the_checked_address_is_dialled() {
    let network = Network::new(&[]).await;
    let resolver = Script::new(&[&["10.1.2.3"], &["169.254.169.254"]]);
    assert!(dial(&resolver, &network, "rebind.example", &[]).await.is_ok());
    assert_eq!(resolver.asked.load(Ordering::SeqCst), 1);
    assert_eq!(network.dialled(), ["10.1.2.3"]);
    assert_eq!(dial(&resolver, &network, "rebind.example", &[]).await.unwrap_err(), Code::AddressForbidden);
    assert_eq!(network.dialled(), ["10.1.2.3"]);
}

#[tokio::test]
async fn case_56_mixed_answer_is_refused_as_a_whole() {
    for answer in [["10.1.2.3", "127.0.0.1"], ["127.0.0.1", "10.1.2.3"], ["10.1.2.3", "::1"], ["2001:db8::7", "::ffff:127.0.0.1"]] {
        let network = Network::new(&[]).await;
        let resolver = Script::new(&[&answer]);
        assert_eq!(dial(&resolver, &network, "mixed.example", &[]).await.unwrap_err(), Code::AddressForbidden);
        assert!(network.dialled().is_empty());
    }
}

#[tokio::test]
async fn case_58_service_that_points_to_the_api_server_is_refused_by_address() {
    let network = Network::new(&[]).await;
    let resolver = Script::new(&[&["10.96.0.1"]]);
    assert_eq!(dial(&resolver, &network, "innocent.team.svc.cluster.local", &[]).await.unwrap_err(), Code::AddressForbidden);
    assert!(network.dialled().is_empty());
}

#[tokio::test(start_paused = true)]
async fn second_address_is_tried_after_250_ms_while_the_first_hangs() {
    let network = Network::new(&[("10.0.0.1", Service::Hangs)]).await;
    let resolver = Script::new(&[&["10.0.0.1", "2001:db8::1"]]);
    let started = tokio::time::Instant::now();
    assert!(dial(&resolver, &network, "two.example", &[]).await.is_ok());
    assert_eq!(network.dialled(), ["10.0.0.1", "2001:db8::1"]);
    assert!(started.elapsed() >= ATTEMPT_DELAY && started.elapsed() < 2 * ATTEMPT_DELAY);
}

#[tokio::test(start_paused = true)]
async fn refused_address_is_followed_by_the_next_at_once() {
    let network = Network::new(&[("10.0.0.1", Service::Refuses)]).await;
    let resolver = Script::new(&[&["10.0.0.1", "10.0.0.2"]]);
    let started = tokio::time::Instant::now();
    assert!(dial(&resolver, &network, "two.example", &[]).await.is_ok());
    assert!(started.elapsed() < ATTEMPT_DELAY);
}

#[tokio::test(start_paused = true)]
async fn dial_ends_at_its_deadline_with_the_stage_that_failed() {
    let network =
        Network::new(&[("10.0.0.1", Service::Hangs), ("10.0.0.2", Service::Refuses), ("10.0.0.3", Service::Refuses)]).await;
    for (answer, code) in
        [(&["10.0.0.1"][..], Code::DialTimeout), (&["10.0.0.2", "10.0.0.3"], Code::DialRefused), (&[], Code::NameUnresolved)]
    {
        let started = tokio::time::Instant::now();
        assert_eq!(dial(&Script::new(&[answer]), &network, "some.example", &[]).await.unwrap_err(), code);
        assert!(started.elapsed() <= DEADLINE);
    }
}

#[tokio::test(start_paused = true)]
async fn hanging_resolver_ends_at_the_deadline() {
    struct Hanging;
    impl Resolve for Hanging {
        fn resolve(&self, _: &Name) -> Answer<'_, Vec<IpAddr>> {
            Box::pin(std::future::pending())
        }
    }
    let hop = LastHop::new(Arc::new(Hanging), Arc::new(SystemConnect), Guard::default());
    let started = tokio::time::Instant::now();
    assert_eq!(hop.dial_tcp(&destination("some.example"), &[]).await.result.unwrap_err(), Code::NameUnresolved);
    assert_eq!(started.elapsed(), DEADLINE);
}

#[tokio::test]
async fn long_answers_are_checked_whole_and_dialled_in_part() {
    let answer: Vec<&'static str> =
        ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7", "10.0.0.8", "127.0.0.1"].to_vec();
    let network = Network::new(&[]).await;
    assert_eq!(dial(&Script::new(&[&answer]), &network, "many.example", &[]).await.unwrap_err(), Code::AddressForbidden);
    let addresses: Vec<IpAddr> = (0..100u8).map(|last| IpAddr::from([10, 0, 0, last])).collect();
    assert_eq!(interleave(&addresses).len(), MAX_DIALLED);
}

#[test]
fn families_alternate_and_no_address_comes_twice() {
    let addresses: Vec<IpAddr> =
        ["2001:db8::1", "2001:db8::2", "10.0.0.1", "10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap()).to_vec();
    let order: Vec<String> = interleave(&addresses).iter().map(ToString::to_string).collect();
    assert_eq!(order, ["2001:db8::1", "10.0.0.1", "2001:db8::2", "10.0.0.2"]);
}

#[tokio::test]
async fn udp_is_connected_to_the_checked_address() {
    let service = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = service.local_addr().unwrap().port();
    let destination = Destination::parse("127.0.0.1", port, Protocol::Udp).unwrap();
    let hop = LastHop::system(Guard::default());
    assert_eq!(hop.dial_udp(&destination, &[]).await.result.unwrap_err(), Code::AddressForbidden);
    let socket = hop.dial_udp(&destination, &["127.0.0.1/32".parse().unwrap()]).await.result.unwrap();
    assert_eq!(socket.peer_addr().unwrap(), service.local_addr().unwrap());
}
