//! The protocol over real sockets, and the directory in which they are.
