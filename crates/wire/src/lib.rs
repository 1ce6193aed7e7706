//! Header formats over bytes.
