// Package e2e runs the built Collector beside real programs, and compares what it exports with what others counted:
// the programs themselves, nginx's access log, curl's own figures, and tcpdump.
package e2e
