package tcp

import semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

// Metric names. The semantic conventions have no tcp metrics yet; these follow the open proposal
// system.network.tcp.{rtt,retransmits,resets,connection.duration,handshake.duration} and extend it in its style.
const (
	MetricConnectionDuration   = "system.network.tcp.connection.duration"
	MetricHandshakeDuration    = "system.network.tcp.handshake.duration"
	MetricRTT                  = "system.network.tcp.rtt"
	MetricIO                   = "system.network.tcp.io"
	MetricSegments             = "system.network.tcp.segments"
	MetricRetransmits          = "system.network.tcp.retransmits"
	MetricResets               = "system.network.tcp.resets"
	MetricConnectionsOpened    = "system.network.tcp.connections.opened"
	MetricConnectionsClosed    = "system.network.tcp.connections.closed"
	MetricConnectionsFailed    = "system.network.tcp.connections.failed"
	MetricConnectionsOpen      = "system.network.tcp.connections.open"
	MetricListenerBacklog      = "system.network.tcp.listener.backlog"
	MetricListenerBacklogLimit = "system.network.tcp.listener.backlog.limit"
	MetricListenerDrops        = "system.network.tcp.listener.drops"
)

// EventFlow is the EventName of a flow record.
const EventFlow = "network.flow"

// Attributes that have a semantic convention.
const (
	attrTransport     = string(semconv.NetworkTransportKey)
	attrNetworkType   = string(semconv.NetworkTypeKey)
	attrLocalAddress  = string(semconv.NetworkLocalAddressKey)
	attrLocalPort     = string(semconv.NetworkLocalPortKey)
	attrPeerAddress   = string(semconv.NetworkPeerAddressKey)
	attrPeerPort      = string(semconv.NetworkPeerPortKey)
	attrClientAddress = string(semconv.ClientAddressKey)
	attrClientPort    = string(semconv.ClientPortKey)
	attrServerAddress = string(semconv.ServerAddressKey)
	attrServerPort    = string(semconv.ServerPortKey)
	attrErrorType     = string(semconv.ErrorTypeKey)
	attrIODirection   = string(semconv.NetworkIODirectionKey)
	attrPID           = string(semconv.ProcessPIDKey)
	attrExecutable    = string(semconv.ProcessExecutablePathKey)
	attrTCPState      = string(semconv.NetworkConnectionStateKey)
)

// Attributes of our own, for what no convention names.
const (
	attrRole           = "network.flow.role"           // client, server, listener
	attrRetransmitType = "network.tcp.retransmit.type" // data, syn, syn_ack
	attrOverflow       = "otel.metric.overflow"        // of the SDK specification: what did not fit max_series

	attrFlowID        = "network.flow.id"       // the same on both ends
	attrFlowReport    = "network.flow.report"   // end, snapshot
	attrFlowStart     = "network.flow.start"    // RFC 3339
	attrFlowDuration  = "network.flow.duration" // s
	attrFlowInterval  = "network.flow.interval" // s since the report before
	attrNamespace     = "network.namespace.id"  // inode of the network namespace, as in /proc/PID/ns/net
	attrCgroupID      = "linux.cgroup.id"
	attrPreexisting   = "network.flow.preexisting" // stood before the receiver started: totals exceed what it reports
	attrOwnerInferred = "process.inferred"         // the owner is the listener's; no task was seen to use the connection

	attrSentBytes             = "tcp.sent.bytes"
	attrReceivedBytes         = "tcp.received.bytes"
	attrSentBytesDelta        = "tcp.sent.bytes.delta"
	attrReceivedBytesDelta    = "tcp.received.bytes.delta"
	attrSentSegments          = "tcp.sent.segments"
	attrReceivedSegments      = "tcp.received.segments"
	attrSentSegmentsDelta     = "tcp.sent.segments.delta"
	attrReceivedSegmentsDelta = "tcp.received.segments.delta"
	attrRetransmits           = "tcp.retransmits"
	attrRetransmitsDelta      = "tcp.retransmits.delta"
	attrHandshakeDuration     = "tcp.handshake.duration" // s
	attrSYNRetransmits        = "tcp.syn.retransmits"
	attrSYNACKRetransmits     = "tcp.syn_ack.retransmits"
	attrResetsSent            = "tcp.resets.sent"
	attrResetsReceived        = "tcp.resets.received"
	attrSRTT                  = "tcp.srtt"     // s
	attrRTTVariation          = "tcp.rttvar"   // s
	attrMinRTT                = "tcp.min_rtt"  // s
	attrCongestionWindow      = "tcp.cwnd"     // segments
	attrSlowStartThreshold    = "tcp.ssthresh" // segments
	attrMSS                   = "tcp.mss"      // bytes
	attrCongestionControl     = "tcp.congestion_control"
	attrNoDelay               = "tcp.nodelay"
	attrUserTimeout           = "tcp.user_timeout" // s
	attrDSCP                  = "ip.dscp"
	attrMark                  = "socket.mark"
	attrPriority              = "socket.priority"
	attrReceiveBuffer         = "socket.receive_buffer" // bytes
	attrSendBuffer            = "socket.send_buffer"    // bytes
	attrKeepAlive             = "socket.keepalive"
	attrReuseAddress          = "socket.reuse_address"
	attrReusePort             = "socket.reuse_port"
	attrBoundInterface        = "socket.bound_interface" // index
)

// Values of error.type that are not errno names.
const (
	errorAborted = "aborted" // the application closed the socket before the connection was established
	errorOther   = "_OTHER"
)
