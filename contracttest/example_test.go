package contracttest_test

import (
	"context"
	"fmt"

	"github.com/ordergate/ordergate/contracttest"
)

// The report tells what was found, and which parts were left out.
func ExampleCheck() {
	report, err := contracttest.Check(context.Background(), contracttest.Options{BaseURL: "http://127.0.0.1:1", Key: "og_test_x", Requests: 500})
	if err != nil {
		fmt.Println("the options are wrong:", err)
		return
	}
	switch report.Verdict {
	case contracttest.Failed:
		fmt.Println(report.Findings)
	case contracttest.CouldNotRun:
		fmt.Println("nobody answers there")
	case contracttest.Passed:
		for _, part := range report.Parts {
			if part.Result == contracttest.Skipped {
				fmt.Println(part.Name, part.Reason)
			}
		}
	}
	// Output: nobody answers there
}
