//! The vhost protocol: the vhost-user back-end session.
