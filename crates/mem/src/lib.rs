//! Guest memory: regions, address table, volatile copies, SIGBUS guard.
