package eval

import (
	"math/rand/v2"

	"rebeca/online"
	"rebeca/prior"
)

// diary is the whole stream in memory, by person: what a way of learning without windows goes through again and again.
type diary struct {
	world *World
	at    map[string]int // index of an item by id
	rows  map[string]int // of the table of users, in order of first events
	lives [][]mark       // by row, oldest first
}

// mark is an event of somebody.
type mark struct {
	item  int // index into World.Items
	label prior.Class
}

func newDiary(h *house) *diary { return &diary{world: h.world, at: h.at, rows: map[string]int{}} }

// write adds events that say something about taste and returns the rows of their people, one an event.
func (d *diary) write(events []online.Example) (rows []int) {
	for _, e := range events {
		item, ok := d.at[e.ItemID]
		if !ok || e.Class == prior.ClassNone {
			continue
		}
		row, ok := d.rows[e.UserID]
		if !ok {
			row = len(d.lives)
			d.rows[e.UserID] = row
			d.lives = append(d.lives, nil)
		}
		d.lives[row] = append(d.lives[row], mark{item, e.Class})
		rows = append(rows, row)
	}
	return rows
}

// lesson is some events of one person.
type lesson struct {
	row   int
	marks []mark
}

// newest is the person's last event and n-1 random others of theirs.
func (d *diary) newest(row, n int, rng *rand.Rand) lesson {
	life := d.lives[row]
	l := lesson{row, []mark{life[len(life)-1]}}
	for range min(n, len(life)) - 1 {
		l.marks = append(l.marks, life[rng.IntN(len(life))])
	}
	return l
}

// anybody is n random events of a random person.
func (d *diary) anybody(n int, rng *rand.Rand) lesson {
	return d.newest(rng.IntN(len(d.lives)), n, rng)
}

// epoch is every event once, in lessons of up to n, in random order.
func (d *diary) epoch(n int, rng *rand.Rand) (lessons []lesson) {
	for row, life := range d.lives {
		order := rng.Perm(len(life))
		for from := 0; from < len(order); from += n {
			l := lesson{row: row}
			for _, k := range order[from:min(from+n, len(order))] {
				l.marks = append(l.marks, life[k])
			}
			lessons = append(lessons, l)
		}
	}
	rng.Shuffle(len(lessons), func(i, j int) { lessons[i], lessons[j] = lessons[j], lessons[i] })
	return lessons
}

// batch makes lessons into a batch of a prior with a table of users; a share of them teaches what nobody in particular likes.
func (d *diary) batch(lessons []lesson, dropout float64, rng *rand.Rand) *prior.Batch {
	b := new(prior.Batch)
	for c, l := range lessons {
		row, dropped := l.row, rng.Float64() < dropout
		if dropped {
			row = prior.NoUser
		}
		b.Users = append(b.Users, row)
		for _, m := range l.marks {
			label := m.label
			if dropped {
				label = prior.ClassNone
			}
			b.Targets = append(b.Targets, prior.Target{Context: c, Item: d.world.Items[m.item], Label: label})
		}
	}
	return b
}
