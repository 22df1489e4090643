//! For tests: a server on a free port that answers as told, for wire formats, status codes and timeouts.

use axum::Router;
use kube::Config;

use crate::client::{Clients, install_crypto};

/// The address of a server that answers as `app` does.
pub async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    install_crypto();
    url
}

/// Clients of an API server that answers as `app` does.
pub async fn api_server(app: Router) -> Clients {
    let config = Config::new(serve(app).await.parse().expect("a URI"));
    Clients::from_config(config).expect("clients")
}
