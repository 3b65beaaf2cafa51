// Package http observes HTTP exchanges: what processes send and receive on TCP sockets becomes spans and metrics.
package http
