package eval

import (
	"math"
	"slices"
)

// wasserstein is W2², the squared 2-Wasserstein distance between the uniform distributions over two samples of any sizes, exactly: the
// least cost Σ f_ij |a_i - b_j|² over flows f ≥ 0 with Σ_j f_ij = 1/len(a) and Σ_i f_ij = 1/len(b). The published figures are of this
// kind (POT's emd2).
func wasserstein(a, b [][]float32) float64 {
	if len(a) > len(b) {
		a, b = b, a
	}
	return solve(a, b).total()
}

// solve finds the cheapest transport to columns from rows, of which there are as many or more.
func solve(columns, rows [][]float32) *flow {
	g := gcd(len(columns), len(rows))
	f := newFlow(columns, rows, len(rows)/g, len(columns)/g)
	f.appraise()
	for j := range rows {
		f.ship(j)
	}
	return f
}

// total is the cost of what has been shipped, as a mean over units.
func (f *flow) total() (sum float64) {
	for c, bag := range f.bags {
		for _, l := range bag {
			sum += float64(l.units) * f.cost[l.row][c]
		}
	}
	return sum / float64(len(f.cost)) / float64(f.supply)
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// flow is a transport under way: rows (the larger sample) are shipped one after the other to columns (the smaller one), each along a
// shortest augmenting path (Ahuja, Magnanti & Orlin 1993, section 9.7). Only columns are nodes of the search: the way from a column
// to another is the cheapest row that can be moved from the one to the other.
type flow struct {
	cost     [][]float64 // [row][column]
	supply   int         // units of each row
	room     []int       // units left, by column
	bags     [][]load    // what is in each column
	move     [][]float64 // [from][to]: least cost of moving a unit that is in from, +Inf for an empty one
	mover    [][]int32   // its row
	price    []float64   // of columns; keeps every reduced cost of a move at 0 or above
	distance []float64
	before   []int // the column that leads here; -1: from the row itself
	done     []bool
}

// load is units of a row in a column.
type load struct {
	row   int
	units int
}

func newFlow(columns, rows [][]float32, room, supply int) *flow {
	n := len(columns)
	f := &flow{
		cost: make([][]float64, len(rows)), supply: supply, room: make([]int, n), bags: make([][]load, n),
		move: make([][]float64, n), mover: make([][]int32, n),
		price: make([]float64, n), distance: make([]float64, n), before: make([]int, n), done: make([]bool, n),
	}
	for j, r := range rows {
		f.cost[j] = make([]float64, n)
		for i, c := range columns {
			f.cost[j][i] = square(c, r)
		}
	}
	for c := range f.room {
		f.room[c] = room
		f.move[c], f.mover[c] = make([]float64, n), make([]int32, n)
		f.survey(c)
	}
	return f
}

// appraise finds prices at which about as many rows as fit want each column, by ascent of the dual problem: any prices are a valid
// start, but from good ones most rows find room where they want to go, and the searches for the others are short.
func (f *flow) appraise() {
	const rounds = 100
	want := make([]float64, len(f.price))
	rate := 0.
	for j := range f.cost {
		rate += slices.Min(f.cost[j]) / float64(len(f.cost))
	}
	share := float64(len(f.price)) / float64(len(f.cost)) // of a column that a row fills
	for k := range rounds {
		clear(want)
		for _, costs := range f.cost {
			at, least := 0, math.Inf(1)
			for c, x := range costs {
				if d := x - f.price[c]; d < least {
					at, least = c, d
				}
			}
			want[at] += share
		}
		step := .2 * rate / (1 + float64(k)/5) // in the distance of a row to its nearest column
		for c, w := range want {
			f.price[c] += step * (1 - min(w, 3)) // a column that everybody wants is not made dear at once
		}
	}
}

// survey finds the least costs of moving something out of column c.
func (f *flow) survey(c int) {
	for i := range f.move[c] {
		f.move[c][i] = math.Inf(1)
	}
	for _, l := range f.bags[c] {
		f.offer(c, l.row)
	}
}

// offer takes a row that has come to column c into account.
func (f *flow) offer(c, row int) {
	costs, move, mover := f.cost[row], f.move[c], f.mover[c]
	here := costs[c]
	for i, x := range costs {
		if x -= here; x < move[i] {
			move[i], mover[i] = x, int32(row)
		}
	}
}

// ship sends all units of a row.
func (f *flow) ship(row int) {
	for left := f.supply; left > 0; {
		end := f.search(row)
		units := min(left, f.room[end])
		for c := end; f.before[c] >= 0; c = f.before[c] {
			from := f.before[c]
			units = min(units, f.inside(from, int(f.mover[from][c])))
		}
		f.room[end] -= units
		left -= units
		f.pass(row, end, units)
	}
}

// pass moves units along the path that ends at a column.
func (f *flow) pass(row, end, units int) {
	for c := end; ; {
		from := f.before[c]
		if from < 0 {
			f.put(c, row, units)
			return
		}
		moved := int(f.mover[from][c])
		f.put(c, moved, units)
		f.take(from, moved, units)
		c = from
	}
}

func (f *flow) inside(c, row int) int {
	for _, l := range f.bags[c] {
		if l.row == row {
			return l.units
		}
	}
	panic("eval: a row is not in the column that it is moved from")
}

func (f *flow) put(c, row, units int) {
	for i := range f.bags[c] {
		if f.bags[c][i].row == row {
			f.bags[c][i].units += units
			return
		}
	}
	f.bags[c] = append(f.bags[c], load{row, units})
	f.offer(c, row)
}

func (f *flow) take(c, row, units int) {
	bag := f.bags[c]
	for i := range bag {
		if bag[i].row != row {
			continue
		}
		if bag[i].units -= units; bag[i].units == 0 {
			bag[i] = bag[len(bag)-1]
			f.bags[c] = bag[:len(bag)-1]
			f.survey(c)
		}
		return
	}
}

// search finds the column with room that is nearest to a row (Dijkstra, by reduced costs) and moves the prices.
func (f *flow) search(row int) (end int) {
	at, least := -1, math.Inf(1)
	for c, x := range f.cost[row] {
		d := x - f.price[c]
		f.distance[c], f.before[c], f.done[c] = d, -1, false
		if d < least {
			at, least = c, d
		}
	}
	for f.room[at] == 0 {
		f.done[at] = true
		from, base, next := at, least+f.price[at], math.Inf(1)
		move, price := f.move[from], f.price
		for c, d := range f.distance {
			if f.done[c] {
				continue
			}
			if e := base + move[c] - price[c]; e < d {
				d = e
				f.distance[c], f.before[c] = e, from
			}
			if d < next {
				at, next = c, d
			}
		}
		least = next
	}
	for c := range f.price {
		f.price[c] += min(f.distance[c], least)
	}
	return at
}

// square is the squared Euclidean distance.
func square(a, b []float32) float64 {
	s := 0.
	for d := range a {
		x := float64(a[d] - b[d])
		s += x * x
	}
	return s
}
