//! Who asks, and what they may.

use axum::{
    extract::{ConnectInfo, Request, connect_info::Connected},
    http::Method,
    middleware::Next,
    response::Response,
    serve::IncomingStream,
};
use ringway_api::v1::{Code, Failure};

use super::{limit::Limited, refusal::Refusal};

/// The user at the other end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    user: u32,
}

impl Connected<IncomingStream<'_, Limited>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Limited>) -> Self {
        Self {
            user: stream.io().user(),
        }
    }
}

/// Reading is for whoever got here, changing for root and for the user of the daemon.
pub(super) async fn authorize(
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let own = rustix::process::geteuid().as_raw();
    judge(request.method(), peer.user, own)?;
    Ok(next.run(request).await)
}

fn judge(method: &Method, user: u32, own: u32) -> Result<(), Failure> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    if reads || user == 0 || user == own {
        return Ok(());
    }
    let may = match own {
        0 => "root may".into(),
        own => format!("root and user {own} may"),
    };
    Err(Failure::new(
        Code::Forbidden,
        format!("user {user} may look and not change anything, only {may}: try again with sudo"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_daemons_user_change_things_and_others_read() {
        for (user, own, may) in [
            (0, 0, true),
            (0, 1000, true),
            (1000, 1000, true),
            (1000, 0, false),
            (1001, 1000, false),
        ] {
            for method in [Method::POST, Method::PATCH, Method::DELETE, Method::PUT] {
                let judged = judge(&method, user, own);
                assert_eq!(judged.is_ok(), may, "{method} {user} {own}");
                if let Err(failure) = judged {
                    assert_eq!(failure.code, Code::Forbidden);
                }
            }
            assert_eq!(judge(&Method::GET, user, own), Ok(()));
        }
    }
}
