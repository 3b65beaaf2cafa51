//go:build linux

package tcp

import (
	"net/netip"
	"strconv"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// records collects flow records, those of one workload identity under one resource.
// It is not safe for concurrent use.
type records struct {
	describeScope func(pcommon.InstrumentationScope)
	logs          plog.Logs
	byResource    map[string]plog.LogRecordSlice
	count         int
}

func newRecords(describeScope func(pcommon.InstrumentationScope)) *records {
	return &records{
		describeScope: describeScope,
		logs:          plog.NewLogs(),
		byResource:    map[string]plog.LogRecordSlice{},
	}
}

// take hands over what was collected and begins anew.
func (r *records) take() plog.Logs {
	logs := r.logs
	r.logs = plog.NewLogs()
	clear(r.byResource)
	r.count = 0
	return logs
}

func (r *records) add(f *flow, owner *workload.Workload, clock *kernel.Clock, observed time.Time) {
	identity := owner.ResourceKey()
	slice, ok := r.byResource[identity]
	if !ok {
		resource := r.logs.ResourceLogs().AppendEmpty()
		owner.PutResource(resource.Resource().Attributes())
		scope := resource.ScopeLogs().AppendEmpty()
		r.describeScope(scope.Scope())
		slice = scope.LogRecords()
		r.byResource[identity] = slice
	}
	record := slice.AppendEmpty()
	record.SetEventName(EventFlow)
	record.SetTimestamp(pcommon.NewTimestampFromTime(clock.Wall(f.TimeNs)))
	record.SetObservedTimestamp(pcommon.NewTimestampFromTime(observed))
	record.SetSeverityNumber(plog.SeverityNumberInfo)
	record.Body().SetStr(f.summary(owner))
	attributes := record.Attributes()
	attributes.EnsureCapacity(56)
	f.describe(attributes, owner, clock)
	r.count++
}

// summary is the report in one line for people: curl client 192.0.2.1:40000 -> 192.0.2.2:443 closed, ....
func (f *flow) summary(owner *workload.Workload) string {
	line := make([]byte, 0, 192)
	line = append(line, owner.ExecutableName...)
	line = append(line, ' ')
	line = append(line, roleName(f.role())...)
	line = append(line, ' ')
	client := netip.AddrPortFrom(f.local(), f.LocalPort)
	server := netip.AddrPortFrom(f.peer(), f.PeerPort)
	if f.role() == bpfFlowRoleROLE_SERVER {
		client, server = server, client
	}
	line = client.AppendTo(line)
	line = append(line, " -> "...)
	line = server.AppendTo(line)
	switch errorType := f.errorType(); {
	case f.failed():
		line = append(append(line, " failed: "...), errorType...)
		return string(line)
	case f.kind() == bpfFlowKindFLOW_SNAPSHOT:
		line = append(line, " open"...)
	case errorType != "":
		line = append(append(line, " broken: "...), errorType...)
	default:
		line = append(line, " closed"...)
	}
	line = strconv.AppendUint(append(line, ", sent "...), f.Total.SentBytes, 10)
	line = strconv.AppendUint(append(line, " B, received "...), f.Total.ReceivedBytes, 10)
	line = append(line, " B"...)
	if duration, ok := f.duration(); ok {
		line = append(append(line, ", "...), duration.Round(time.Microsecond).String()...)
	}
	return string(line)
}

// describe writes every field of a report. What is not known is not written.
func (f *flow) describe(attributes pcommon.Map, owner *workload.Workload, clock *kernel.Clock) {
	f.describeEnds(attributes)

	report := "snapshot"
	if f.kind() == bpfFlowKindFLOW_END {
		report = "end"
	}
	attributes.PutStr(attrFlowReport, report)
	attributes.PutStr(attrRole, roleName(f.role()))
	attributes.PutStr(attrTCPState, f.stateName())
	if id := f.id(); id != "" {
		attributes.PutStr(attrFlowID, id)
	}
	if errorType := f.errorType(); errorType != "" {
		attributes.PutStr(attrErrorType, errorType)
	}

	f.describeTimes(attributes, clock)

	if f.Owner.Pid != 0 {
		attributes.PutInt(attrPID, int64(f.Owner.Pid))
	}
	putText(attributes, attrExecutable, owner.ExecutablePath)
	if f.has(bpfFlowFlagsFLAG_OWNER_INHERITED) {
		attributes.PutBool(attrOwnerInferred, true)
	}
	if f.CgroupId != 0 {
		attributes.PutInt(attrCgroupID, int64(f.CgroupId))
	}
	attributes.PutInt(attrNamespace, int64(f.NetworkNamespace))

	f.describeTraffic(attributes)
	f.describeOptions(attributes)
}

func (f *flow) describeEnds(attributes pcommon.Map) {
	local, peer := f.local(), f.peer()
	localText, peerText := local.String(), peer.String()
	attributes.PutStr(attrTransport, "tcp")
	attributes.PutStr(attrNetworkType, networkType(peer))
	attributes.PutStr(attrLocalAddress, localText)
	attributes.PutInt(attrLocalPort, int64(f.LocalPort))
	attributes.PutStr(attrPeerAddress, peerText)
	attributes.PutInt(attrPeerPort, int64(f.PeerPort))

	clientText, clientPort, serverText, serverPort := localText, f.LocalPort, peerText, f.PeerPort
	if f.role() == bpfFlowRoleROLE_SERVER {
		clientText, clientPort, serverText, serverPort = serverText, serverPort, clientText, clientPort
	}
	attributes.PutStr(attrClientAddress, clientText)
	attributes.PutInt(attrClientPort, int64(clientPort))
	attributes.PutStr(attrServerAddress, serverText)
	attributes.PutInt(attrServerPort, int64(serverPort))
}

func (f *flow) describeTimes(attributes pcommon.Map, clock *kernel.Clock) {
	if f.has(bpfFlowFlagsFLAG_SEEDED) {
		attributes.PutBool(attrPreexisting, true)
	} else if f.StartedNs != 0 {
		attributes.PutStr(attrFlowStart, clock.Wall(f.StartedNs).UTC().Format(time.RFC3339Nano))
	}
	if duration, ok := f.duration(); ok {
		attributes.PutDouble(attrFlowDuration, duration.Seconds())
	}
	if latency, ok := f.handshakeDuration(); ok {
		attributes.PutDouble(attrHandshakeDuration, latency.Seconds())
	}
	if f.ReportedNs != 0 && f.TimeNs >= f.ReportedNs {
		attributes.PutDouble(attrFlowInterval, time.Duration(f.TimeNs-f.ReportedNs).Seconds())
	}
}

func (f *flow) describeTraffic(attributes pcommon.Map) {
	attributes.PutInt(attrSentBytes, int64(f.Total.SentBytes))
	attributes.PutInt(attrSentBytesDelta, int64(f.Delta.SentBytes))
	attributes.PutInt(attrReceivedBytes, int64(f.Total.ReceivedBytes))
	attributes.PutInt(attrReceivedBytesDelta, int64(f.Delta.ReceivedBytes))
	attributes.PutInt(attrSentSegments, int64(f.Total.SentSegments))
	attributes.PutInt(attrSentSegmentsDelta, int64(f.Delta.SentSegments))
	attributes.PutInt(attrReceivedSegments, int64(f.Total.ReceivedSegments))
	attributes.PutInt(attrReceivedSegmentsDelta, int64(f.Delta.ReceivedSegments))

	syn, data, dataDelta := f.HandshakeRetransmits, f.Total.Retransmits, f.Delta.Retransmits
	if f.failed() {
		syn, data, dataDelta = data, 0, 0
	}
	attributes.PutInt(attrRetransmits, int64(data))
	attributes.PutInt(attrRetransmitsDelta, int64(dataDelta))
	switch {
	case f.has(bpfFlowFlagsFLAG_SEEDED): // those of the handshake are among the data's
	case f.role() == bpfFlowRoleROLE_CLIENT:
		attributes.PutInt(attrSYNRetransmits, int64(syn))
	default:
		attributes.PutInt(attrSYNACKRetransmits, int64(syn))
	}
	attributes.PutInt(attrResetsSent, int64(f.ResetsSent))
	attributes.PutInt(attrResetsReceived, int64(f.ResetsReceived))

	if f.SrttUs > 0 {
		attributes.PutDouble(attrSRTT, float64(f.SrttUs)/1e6)
		attributes.PutDouble(attrRTTVariation, float64(f.RttvarUs)/1e6)
	}
	// The kernel's minimum starts at all ones, until the first sample.
	if f.MinRttUs != 0 && f.MinRttUs != ^uint32(0) {
		attributes.PutDouble(attrMinRTT, float64(f.MinRttUs)/1e6)
	}
	attributes.PutInt(attrCongestionWindow, int64(f.CongestionWindow))
	// TCP_INFINITE_SSTHRESH: slow start has not ended, there is no threshold yet.
	if f.SlowStartThreshold < 0x7fffffff {
		attributes.PutInt(attrSlowStartThreshold, int64(f.SlowStartThreshold))
	}
	attributes.PutInt(attrMSS, int64(f.Mss))
}

func (f *flow) describeOptions(attributes pcommon.Map) {
	putText(attributes, attrCongestionControl, kernel.Text(f.Congestion[:]))
	attributes.PutInt(attrDSCP, int64(f.Tos>>2))
	attributes.PutInt(attrMark, int64(f.Mark))
	attributes.PutInt(attrPriority, int64(f.Priority))
	attributes.PutInt(attrReceiveBuffer, int64(f.ReceiveBuffer))
	attributes.PutInt(attrSendBuffer, int64(f.SendBuffer))
	attributes.PutBool(attrNoDelay, f.has(bpfFlowFlagsFLAG_NODELAY))
	attributes.PutBool(attrKeepAlive, f.has(bpfFlowFlagsFLAG_KEEPALIVE))
	attributes.PutBool(attrReuseAddress, f.has(bpfFlowFlagsFLAG_REUSEADDR))
	attributes.PutBool(attrReusePort, f.has(bpfFlowFlagsFLAG_REUSEPORT))
	if f.UserTimeoutMs != 0 {
		attributes.PutDouble(attrUserTimeout, float64(f.UserTimeoutMs)/1e3)
	}
	if f.BoundInterface != 0 {
		attributes.PutInt(attrBoundInterface, int64(f.BoundInterface))
	}
}

func putText(attributes pcommon.Map, key, value string) {
	if value != "" {
		attributes.PutStr(key, value)
	}
}
