package eval

import "math"

// assignment returns the least sum of cost[i][match(i)] over all one-to-one matches of n rows to n columns, exactly, in O(n³): the
// Hungarian method by shortest augmenting paths (Jonker & Volgenant 1987). cost must be square and finite.
func assignment(cost [][]float64) float64 {
	n := len(cost)
	rowPrice, colPrice := make([]float64, n+1), make([]float64, n+1)
	rowOf, from := make([]int, n+1), make([]int, n+1) // by column, from 1; 0 is a column that stands for none
	for i := 1; i <= n; i++ {
		rowOf[0] = i
		least, used := make([]float64, n+1), make([]bool, n+1)
		for j := range least {
			least[j] = math.Inf(1)
		}
		col := 0
		for rowOf[col] != 0 {
			used[col] = true
			row, delta, next := rowOf[col], math.Inf(1), 0
			for j := 1; j <= n; j++ {
				if used[j] {
					continue
				}
				if c := cost[row-1][j-1] - rowPrice[row] - colPrice[j]; c < least[j] {
					least[j], from[j] = c, col
				}
				if least[j] < delta {
					delta, next = least[j], j
				}
			}
			for j := 0; j <= n; j++ {
				if used[j] {
					rowPrice[rowOf[j]] += delta
					colPrice[j] -= delta
				} else {
					least[j] -= delta
				}
			}
			col = next
		}
		for col != 0 {
			rowOf[col] = rowOf[from[col]]
			col = from[col]
		}
	}
	sum := 0.
	for j := 1; j <= n; j++ {
		sum += cost[rowOf[j]-1][j-1]
	}
	return sum
}

// transport is W2², the squared 2-Wasserstein distance of two samples of equal size, exactly.
func transport(a, b [][]float32) float64 {
	cost := make([][]float64, len(a))
	for i := range a {
		cost[i] = make([]float64, len(b))
		for j := range b {
			cost[i][j] = square(a[i], b[j])
		}
	}
	return assignment(cost) / float64(len(a))
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
