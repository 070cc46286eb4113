package app

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ordergate/ordergate/contracttest"
)

// errContract marks what keeps `contract` from a verdict, errBroken that the address breaks the contract.
var (
	errContract = errors.New("the contract's tests could not run")
	errBroken   = errors.New("the address does not keep the contract")
)

// testContract is `ordergate contract`: the suite of package contracttest against any address. Progress goes to stderr, the report to stdout.
func testContract(flags *flag.FlagSet) runner {
	var o contracttest.Options
	var narrow, only, junit string
	var asJSON, matrix, live bool
	flags.StringVar(&o.BaseURL, "url", "", "the `address` to test, such as http://127.0.0.1:8080")
	flags.StringVar(&o.Key, "key", "", "an API `key` with all scopes, best of test mode; else ORDERGATE_KEY")
	flags.StringVar(&junit, "junit", "", "writes a JUnit report into a `file`, for CI")
	flags.BoolVar(&asJSON, "json", false, "prints the whole report as JSON, in place of the ten lines")
	flags.BoolVar(&matrix, "matrix", false, "prints which (operation, status, code) were proven, and why others were not")
	flags.StringVar(&only, "only", "", "`tags` of the contract (Orders), parts (placing, fuzzing) or operationIds, with commas between them")
	flags.Uint64Var(&o.Seed, "seed", 0, "of the fuzzing: the same one sends the same requests; 0: a new one, which the report names")
	flags.IntVar(&o.Requests, "requests", 20_000, "of the fuzzing; 0: none")
	flags.DurationVar(&o.Patience, "patience", 30*time.Second, "how long to wait for what must happen; with 16m a reservation runs out, too")
	flags.StringVar(&narrow, "narrow-key", demoReads+","+demoWrites, "`keys` that lack scopes, with commas between them: each operation must be beyond one of them")
	flags.StringVar(&o.ExpiredKey, "expired-key", demoExpired, "a `key` that has expired")
	flags.StringVar(&o.RevokedKey, "revoked-key", demoRevoked, "a `key` that was revoked")
	flags.StringVar(&o.ProviderSecret, "provider-secret", "", "the `secret` that signs the payment provider's callbacks; else ORDERGATE_PROVIDER_SECRET. ordergate run keeps it in provider-secret, in its data folder")
	flags.StringVar(&o.Origin, "origin", "", "an `origin` of browsers that the address allows, such as https://shop.example; else localhost and some more are tried")
	flags.BoolVar(&live, "live", false, "takes a key of live mode: the orders, charges and refunds are real")
	return func(ctx context.Context, proc process) (err error) {
		flags.Visit(func(f *flag.Flag) {
			if slices.Contains(requirable, f.Name) && f.Value.String() != "" {
				o.Required = append(o.Required, f.Name)
			}
		})
		o.Key = cmp.Or(o.Key, proc.cfg.Key)
		o.ProviderSecret = cmp.Or(o.ProviderSecret, proc.cfg.ProviderSecret)
		switch {
		case o.BaseURL == "" || o.Key == "":
			return fmt.Errorf("%w: it needs --url and --key", errContract)
		case !live && slices.ContainsFunc(append(commaSeparated(narrow), o.Key, o.ExpiredKey, o.RevokedKey), isLive):
			return fmt.Errorf("%w: a key is of live mode, where orders, charges and refunds are real; --live allows it", errContract)
		case only != "" && len(commaSeparated(only)) == 0:
			return fmt.Errorf("%w: --only names nothing", errContract)
		case o.ProviderSecret != "" && len(o.ProviderSecret) < minSecret:
			return fmt.Errorf("%w: the provider's secret (--provider-secret or ORDERGATE_PROVIDER_SECRET) has %d bytes, and none has less than %d", errContract, len(o.ProviderSecret), minSecret)
		case o.Requests < 0 || o.Patience <= 0:
			return fmt.Errorf("%w: --requests is at least 0, and --patience more than 0", errContract)
		}
		o.NarrowKeys, o.Only, o.Progress = commaSeparated(narrow), commaSeparated(only), proc.logs
		if err = o.Validate(); err != nil { // before the last report goes
			return fmt.Errorf("%w: %w", errContract, err)
		}
		var file io.WriteCloser
		if junit != "" { // before the run: a path that is wrong must not cost one
			if file, err = os.Create(junit); err != nil {
				return fmt.Errorf("%w: cannot write the JUnit report: %w", errContract, err)
			}
			defer func() { err = errors.Join(err, file.Close()) }()
		}
		report, err := contracttest.Check(ctx, o)
		if err != nil {
			return fmt.Errorf("%w: %w", errContract, err)
		}
		if file != nil {
			err = report.JUnit(file)
		}
		if !asJSON && !report.Ran() { // the error tells all that there is
			return errors.Join(err, verdict(report, report.Reason))
		}
		why := report.Reason
		if !asJSON {
			why = "the verdict says why"
		}
		return errors.Join(err, writeReport(proc.stdout, report, asJSON, matrix), verdict(report, why))
	}
}

// requirable are the options that must work if they are given: their defaults, and what the environment gives, need not.
var requirable = []string{"narrow-key", "expired-key", "revoked-key", "provider-secret", "origin"}

func isLive(key string) bool { return strings.HasPrefix(key, "og_live_") }

// commaSeparated are the entries of a list, without the blanks around them. One may have blanks in it, as a part's name has.
func commaSeparated(list string) (entries []string) {
	for entry := range strings.SplitSeq(list, ",") {
		if entry = strings.TrimSpace(entry); entry != "" {
			entries = append(entries, entry)
		}
	}
	return entries
}

func writeReport(stdout io.Writer, report *contracttest.Report, asJSON, matrix bool) error {
	if asJSON {
		return report.JSON(stdout)
	}
	if matrix {
		report.PrintMatrix(stdout)
		fmt.Fprintln(stdout)
	}
	for _, f := range report.Findings {
		fmt.Fprintln(stdout, f)
		if f.Repeat != "" {
			fmt.Fprintln(stdout, "   ", f.Repeat)
		}
	}
	for _, note := range report.Notes {
		fmt.Fprintln(stdout, "note:", note)
	}
	if len(report.Findings)+len(report.Notes) > 0 {
		fmt.Fprintln(stdout)
	}
	_, err := fmt.Fprintln(stdout, report)
	return err
}

// verdict is the error that a report ends the process with. why is told of one that could not run.
func verdict(report *contracttest.Report, why string) error {
	switch report.Code() {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("%w: %d findings", errBroken, len(report.Findings)+report.Hidden)
	}
	return fmt.Errorf("%w: %s", errContract, why)
}
