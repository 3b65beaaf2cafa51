package signal

import "time"

// Next is the first time of a fixed rhythm after now: what was late does not make the rest late.
func Next(due time.Time, interval time.Duration, now time.Time) time.Time {
	if missed := now.Sub(due); missed >= 0 {
		due = due.Add(missed - missed%interval + interval)
	}
	return due
}
