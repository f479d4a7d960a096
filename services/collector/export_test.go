package collector

// The steps of an import, for tests.
const (
	StepValidated = string(stepValidated)
	StepAccepted  = string(stepAccepted)
	StepGroup     = string(stepGroup)
	StepSpooled   = string(stepSpooled)
)

// WithImportSteps calls at before each step of an import, whose groups are of
// groupBytes; what it returns ends the import there.
func WithImportSteps(groupBytes int, at func(step string) error) Option {
	return func(o *options) {
		o.importGroupBytes = groupBytes
		o.importStep = func(s importStep) error { return at(string(s)) }
	}
}
