package rpc

import (
	"fmt"
	"net"
	"net/netip"
)

// CheckListen returns why a server may not listen at host:port: it is no address,
// or not one of loopback while nothing here authenticates callers. insecure allows
// the latter.
func CheckListen(address string, insecure bool) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not host:port", address)
	}
	if insecure || loopback(host) {
		return nil
	}
	return fmt.Errorf("%s is not a loopback address, and there is no authentication yet: anyone who reaches it could "+
		"read and write everything; listen on 127.0.0.1, or set insecure: true if only trusted callers reach it", address)
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
