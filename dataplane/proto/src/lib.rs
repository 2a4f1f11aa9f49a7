//! Codecs and protocol machines for DHCP, TFTP, HTTP/1.1 and router advertisements; no I/O.
