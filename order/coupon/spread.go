package coupon

import (
	"cmp"
	"math/bits"
	"slices"
)

// spread divides an amount, which is at most the sum of the lines, among them in proportion. Each gets the whole part of its share. The
// units that are left go, one each, to the lines with the largest remainders.
func spread(amount int64, lines []int64) []int64 {
	parts := make([]int64, len(lines))
	sum := Basket{Lines: lines}.Subtotal()
	if amount == 0 {
		return parts
	}
	remainders, byRemainder, left := make([]uint64, len(lines)), make([]int, len(lines)), amount
	for i, line := range lines {
		hi, lo := bits.Mul64(uint64(amount), uint64(line))
		part, remainder := bits.Div64(hi, lo, uint64(sum))
		parts[i], remainders[i], byRemainder[i] = int64(part), remainder, i
		left -= parts[i]
	}
	slices.SortStableFunc(byRemainder, func(a, b int) int { return cmp.Compare(remainders[b], remainders[a]) })
	for _, i := range byRemainder[:left] {
		parts[i]++
	}
	return parts
}
