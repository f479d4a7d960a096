package oracle

import "path/filepath"

// GPT3 is the 64-node MLPerf run: 512 GPUs, one meter a node.
const (
	GPT3StartMS = 1715960307022
	GPT3StopMS  = 1715963719692
	GPT3Samples = 108_916
)

// smc is where the MLPerf traces lie in the shared data.
const smc = "power/mlperf_train_v4.0_smc_h100"

// GPT3Path returns the CSV (node,time_unix_ms,watts) below the shared data.
func GPT3Path(shared string) string {
	return filepath.Join(shared, smc, "gpt3_64node_ac_5848_2.csv")
}

// ReadGPT3 reads it.
func ReadGPT3(shared string) (Trace, error) {
	return ReadPower(GPT3Path(shared), "node", "", "time_unix_ms", "watts", 1000)
}

// ReadLlama2 reads one of the single-node runs, such as
// 5027-240510020224961918558_1, and its window.
func ReadLlama2(shared, run string) (t Trace, startMS, stopMS int64, err error) {
	base := filepath.Join(shared, smc, "llama2_70b_lora_1node_ac", "result_"+run)
	samples, err := ReadMLLog(base + ".node_0.txt")
	if err != nil {
		return nil, 0, 0, err
	}
	startMS, stopMS, err = ReadRun(base + ".run.txt")
	return Trace{"node_0": samples}, startMS, stopMS, err
}

// Llama2Gaps is the run with gaps of 19 s and a repeated timestamp.
const Llama2Gaps = "5027-240510020224961918558_1"
