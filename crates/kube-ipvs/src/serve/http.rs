//! An HTTP/1.1 server for few callers: probes and scrapers.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use http::{HeaderValue, StatusCode, header, request::Parts};
use http_body_util::Full;
use hyper::{Request, body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use super::callers::Callers;

pub(super) type Response = http::Response<Full<Bytes>>;

pub(super) trait Site: Send + Sync + 'static {
    fn answer(&self, request: &Parts) -> impl Future<Output = Response> + Send;
}

/// Size of the request buffer in bytes: hyper's minimum.
const MAX_REQUEST: usize = 8192;
/// Maximum age of a connection. An answer in progress is still completed.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(300);
/// Delay after a failed accept, for example with too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(200);

/// Listens. An unspecified address means both families, as in Go programs.
pub(super) fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    if at.ip().is_unspecified() {
        let all = SocketAddr::from(([0u16; 8], at.port()));
        match bind(all) {
            // This host has no IPv6.
            Err(error) if !matches!(error.kind(), io::ErrorKind::AddrInUse) && at.is_ipv4() => {}
            outcome => return outcome,
        }
    }
    bind(at)
}

fn bind(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    if at.is_ipv6() {
        socket.set_only_v6(!at.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    socket.listen(128)?;
    TcpListener::from_std(socket.into())
}

/// Answers all callers until the server ends. Before it ends, it completes answers in progress. Dropping this future
/// cuts them off.
pub(super) async fn serve(listener: TcpListener, site: Arc<impl Site>, callers: Arc<Callers>) {
    let mut conversations = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = callers.end() => break,
        };
        let (stream, peer) = match accepted {
            Ok(caller) => caller,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            }
        };
        while conversations.try_join_next().is_some() {}
        let (site, place) = (Arc::clone(&site), callers.enter(peer.ip()));
        conversations.spawn(async move {
            tokio::select! {
                () = place.taken() => {}
                () = converse(stream, site, &place.callers) => {}
            }
        });
    }
    drop(listener);
    while conversations.join_next().await.is_some() {}
}

async fn converse(stream: TcpStream, site: Arc<impl Site>, callers: &Callers) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(site.answer(&request.into_parts().0).await) }
    });
    let mut connection = http1::Builder::new();
    let patience = callers.patience;
    // If a caller does not read its answer, the kernel disconnects it and frees the answer.
    let reads = SockRef::from(&stream).set_tcp_user_timeout(Some(patience));
    if let Err(error) = reads {
        tracing::debug!(%error, "cannot limit how long a client can take to read");
    }
    connection.timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(MAX_REQUEST);
    let mut connection = pin!(connection.serve_connection(TokioIo::new(stream), answer));
    // A caller that disconnects early is not an error.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = sleep(MAX_CONNECTION_AGE) => {}
        () = callers.end() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(patience, connection).await;
}

pub(super) fn text(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

pub(super) const PLAIN: &str = "text/plain; charset=utf-8";
pub(super) const JSON: &str = "application/json";

pub(super) fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, PLAIN, "404 page not found\n")
}

pub(super) fn verdict(good: bool, body: &impl serde::Serialize) -> Response {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_vec(body) {
        Ok(body) => text(status, JSON, body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, error.to_string()),
    }
}
