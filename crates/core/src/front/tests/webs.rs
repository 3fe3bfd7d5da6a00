//! Connections of the web that want to stay: nobody's keep others out.

use super::*;

type Browser = tokio_rustls::client::TlsStream<TcpStream>;

/// A browser's connection from this source, its handshake finished.
async fn browse(world: &World, source: [u8; 4]) -> Browser {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((source, 0))).unwrap();
    let tcp = socket.connect(world.front.address()).await.unwrap();
    let mut config = (*world.client.client_config(Leg::Link, Role::Client, None).unwrap()).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
}

#[tokio::test]
async fn case_33_a_browser_that_never_leaves_holds_no_place_once_the_web_has_ended_it() {
    let world = World::new();
    let _browser = browse(&world, [127, 0, 0, 1]).await;
    let (mut web, _) = world.web.accept().await.unwrap();
    assert_eq!(world.front.webs.count(), 1);
    // The whole PROXY header: what is closed over unread bytes is reset.
    web.read_exact(&mut [0; 28]).await.unwrap();
    drop(web);
    timeout_at(soon(), until(|| world.front.webs.count() == 0)).await.unwrap();
}

#[tokio::test]
async fn the_last_answer_of_the_web_comes_whole_though_the_browser_goes_on_sending() {
    let world = World::new();
    let (mut read, mut write) = tokio::io::split(browse(&world, [127, 0, 0, 1]).await);
    let (mut web, _) = world.web.accept().await.unwrap();
    let answer = noise(3, 1 << 20);
    let sending = async { while write.write_all(&noise(4, 1 << 14)).await.is_ok() {} };
    let answering = async {
        web.write_all(&answer).await.unwrap();
        drop(web);
    };
    let mut got = Vec::new();
    let reading = async {
        let _ = read.read_to_end(&mut got).await;
    };
    tokio::join!(sending, answering, reading);
    assert!(got == answer, "{} of {}", got.len(), answer.len());
}

#[tokio::test]
async fn case_33_the_oldest_connection_of_a_source_makes_room_and_others_are_left_alone() {
    let world = World::with(Limits { webs: 8, webs_per_source: 2, ..Limits::default() });
    let (mut neighbour, mut webs) = (browse(&world, [127, 0, 0, 9]).await, vec![world.web.accept().await.unwrap().0]);
    let mut own = std::collections::VecDeque::new();
    for _ in 0..6 {
        own.push_back(browse(&world, [127, 0, 0, 1]).await);
        webs.push(world.web.accept().await.unwrap().0);
        if own.len() > 2 {
            assert!(timeout_at(soon(), ends(own.pop_front().unwrap())).await.unwrap());
        }
    }
    webs[0].write_all(b"still here").await.unwrap();
    let mut got = [0; 10];
    neighbour.read_exact(&mut got).await.unwrap();
    assert_eq!((&got, world.front.webs.count()), (b"still here", 3));
}
