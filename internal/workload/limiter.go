//go:build linux

package workload

import "time"

// limiter is a token bucket. It is not safe for concurrent use.
type limiter struct {
	perSecond float64
	burst     float64
	tokens    float64
	last      time.Time
}

func newLimiter(perSecond, burst float64, now time.Time) *limiter {
	return &limiter{perSecond: perSecond, burst: burst, tokens: burst, last: now}
}

// take takes a token if there is one.
func (l *limiter) take(now time.Time) bool {
	if elapsed := now.Sub(l.last); elapsed > 0 {
		l.tokens = min(l.burst, l.tokens+elapsed.Seconds()*l.perSecond)
		l.last = now
	}
	if l.tokens < 1 {
		return false
	}
	l.tokens--
	return true
}
