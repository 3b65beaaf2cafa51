//go:build linux

package http

import "github.com/ebpfreceiver/ebpfreceiver/internal/workload"

// maxOwnersUses is how often owners are asked at most before they are forgotten.
const maxOwnersUses = 4096

// owners are the processes of the exchanges that the ring has at the moment: most are of a few processes, and to ask the
// table of all processes for each exchange takes its lock each time. What a process is may change, when it executes another
// program. So they are forgotten each time that the ring was read, and after some thousand uses. It is not safe for
// concurrent use.
type owners struct {
	table *workload.Table
	known map[workload.Key]*workload.Workload
	uses  int
}

func newOwners(table *workload.Table) owners {
	return owners{table: table, known: map[workload.Key]*workload.Workload{}}
}

func (o *owners) find(head *messageHead) *workload.Workload {
	key := head.processKey()
	if key.PID == 0 || key.StartBootNs == 0 {
		return o.table.Lookup(key, head.hint()) // the hint decides, or whoever has the pid now
	}
	if o.uses++; o.uses > maxOwnersUses {
		o.forget()
	}
	owner := o.known[key]
	if owner == nil {
		owner = o.table.Lookup(key, head.hint())
		o.known[key] = owner
	}
	return owner
}

func (o *owners) forget() {
	clear(o.known)
	o.uses = 0
}

// schedulers are what the processes are scheduled by whose exchanges the ring has at the moment: runtimes has a lock, and is
// asked twice for each end of an exchange. It is not safe for concurrent use.
type schedulers struct {
	recent [recentSchedulers]recentScheduler // each process has one place, by its pid
}

const recentSchedulers = 16

// recentScheduler is what was said of a process, of which a request began in the role. Unknown: nothing was.
type recentScheduler struct {
	key  workload.Key
	role Role
	by   scheduling
}

// find says what runtimes says, or has said of the same since the ring was read.
func (s *schedulers) find(in *runtimes, key workload.Key, role Role) scheduling {
	recent := &s.recent[key.PID%recentSchedulers]
	// A process that was seen in a role was seen, too.
	if recent.by != schedulingUnknown && recent.key == key && (role == 0 || recent.role == role) {
		return recent.by
	}
	by := in.schedules(key, role)
	*recent = recentScheduler{key, role, by}
	return by
}

func (s *schedulers) forget() { clear(s.recent[:]) }
