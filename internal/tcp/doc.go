// Package tcp is the TCP probe: it turns the connections of the host's processes into flow metrics and flow records.
package tcp
