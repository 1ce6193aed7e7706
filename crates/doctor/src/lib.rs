//! What is slow or broken between a virtual machine and its network, why, and the command that cures it.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
