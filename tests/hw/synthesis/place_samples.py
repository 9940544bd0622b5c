"""Reports in the documented formats, shortened. Written by hand: neither Vivado nor nextpnr-xilinx made them."""

VIVADO_TIMING = """\
------------------------------------------------------------------------------------------------
| Design Timing Summary
| ---------------------
------------------------------------------------------------------------------------------------

    WNS(ns)      TNS(ns)  TNS Failing Endpoints  TNS Total Endpoints      WPWS(ns)     TPWS(ns)
    -------      -------  ---------------------  -------------------      --------     --------
     -0.250       -1.375                      9                 1843         2.870        0.000


------------------------------------------------------------------------------------------------
| Timing Details
| --------------
------------------------------------------------------------------------------------------------

---------------------------------------------------------------------------------------------------
From Clock:  clk
  To Clock:  clk

Max Delay Paths
--------------------------------------------------------------------------------------
Slack (VIOLATED) :        -0.250ns  (required time - arrival time)
  Source:                 unit/count_reg[3]/C
                            (rising edge-triggered cell FDRE clocked by clk  {rise@0.000ns fall@4.000ns period=8.000ns})
  Destination:            unit/sum_reg[7]/D
                            (rising edge-triggered cell FDRE clocked by clk  {rise@0.000ns fall@4.000ns period=8.000ns})
  Path Group:             clk
  Path Type:              Setup (Max at Slow Process Corner)
  Requirement:            8.000ns  (clk rise@8.000ns - clk rise@0.000ns)
  Data Path Delay:        1.990ns  (logic 1.102ns (55.377%)  route 0.888ns (44.623%))
  Logic Levels:           2  (CARRY4=1 LUT6=1)
  Clock Path Skew:        -0.049ns (DCD - SCD + CPR)

    Location             Delay type                Incr(ns)  Path(ns)    Netlist Resource(s)
  -------------------------------------------------------------------    -------------------
                         (clock clk rise edge)        0.000     0.000 r
                                                      0.000     0.000 r  clk (IN)
                         net (fo=569, unset)          0.973     0.973    unit/clk
    SLICE_X10Y20         FDRE                                         r  unit/count_reg[3]/C
  -------------------------------------------------------------------    -------------------
    SLICE_X10Y20         FDRE (Prop_fdre_C_Q)         0.456     1.429 r  unit/count_reg[3]/Q
                         net (fo=18, routed)          0.800     2.229    unit/count[3]
    SLICE_X11Y20         LUT6 (Prop_lut6_I0_O)        0.124     2.353 r  unit/sum[3]_i_2/O
                         net (fo=1, routed)           0.000     2.353    unit/sum[3]_i_2_n_0
    SLICE_X11Y20         CARRY4 (Prop_carry4_S[1]_CO[3])
                                                      0.522     2.875 r  unit/sum_reg[3]_i_1/CO[3]
                         net (fo=2, routed)           0.088     2.963    unit/sum_reg[3]_i_1_n_0
    SLICE_X11Y21         FDRE                                         r  unit/sum_reg[7]/D
  -------------------------------------------------------------------    -------------------

                         (clock clk rise edge)        8.000     8.000 r
                                                      0.000     8.000 r  clk (IN)
                         net (fo=569, unset)          0.924     8.924    unit/clk
    SLICE_X11Y21         FDRE (Setup_fdre_C_D)        0.029     8.953    unit/sum_reg[7]
  -------------------------------------------------------------------
                         required time                          2.713
                         arrival time                          -2.963
  -------------------------------------------------------------------
                         slack                                 -0.250
"""

VIVADO_UTILIZATION = """\
1. Utilization by Hierarchy
---------------------------

+-----------+--------+------------+------------+---------+------+------+--------+--------+------------+
|  Instance | Module | Total LUTs | Logic LUTs | LUTRAMs | SRLs |  FFs | RAMB36 | RAMB18 | DSP Blocks |
+-----------+--------+------------+------------+---------+------+------+--------+--------+------------+
| harness   |  (top) |       1250 |       1100 |     120 |   30 | 1843 |      3 |      1 |         32 |
|   unit    |   unit |       1234 |       1084 |     120 |   30 | 1640 |      3 |      1 |         32 |
|     sub   |    sub |        100 |        100 |       0 |    0 |   64 |      0 |      0 |          0 |
+-----------+--------+------------+------------+---------+------+------+--------+--------+------------+
* Note: The sum of lower-level cells may be larger than their parent cells total, due to cross-hierarchy LUT combining
"""

#: A log of an older nextpnr: paths without the type of each delay. Shortened, with the names and lines of the real one.
XILINX_LOG = """\
Info: Device utilisation:
Info: 	         SLICE_LUTX:    412/106400     0%
Info: 	          SLICE_FFX:    530/106400     0%
Info: 	             CARRY4:     21/13300     0%
Info: 	               BUFG:      1/   32     3%
Info: 	           RAMB18E1:      3/  280     1%
Info: 	           RAMB36E1:      6/  140     4%
Info: 	            DSP48E1:      4/  220     1%

Info: Critical path report for clock 'clk' (posedge -> posedge):
Info: curr total
Info:  9.9  9.9  Source unit.before_routing.Q
Info:  0.1 10.0  Setup unit.before_routing.D
Info: 9.9 ns logic, 0.1 ns routing

Info: Max frequency for clock 'clk': 100.00 MHz (FAIL at 125.00 MHz)

Info: Running router2...
Info: Setting up routing resources...
Info: Running main router loop...
Info:     iter=1 wires=9120 overused=311 overuse=340 archfail=NA
Info:     iter=2 wires=9133 overused=9 overuse=9 archfail=NA
Info:     iter=3 wires=9140 overused=0 overuse=0 archfail=0
Info: Router2 time 1.31s
Info: Running router1 to check that route is legal...

Info: Routing..
Info: Setting up routing queue.
Info: Routing 812 arcs.
Info:            |   (re-)routed arcs  |   delta    | remaining|       time spent     |
Info:    IterCnt |  w/ripup   wo/ripup |  w/r  wo/r |      arcs| batch(sec) total(sec)|
Info:        812 |        0        812 |    0   812 |         0|       0.11       0.11|
Info: Routing complete.
Info: Router1 time 0.11s
Info: Checksum: 0x5d11c31f

Info: Critical path report for clock 'clk' (posedge -> posedge):
Info: curr total
Info:  0.5  0.5  Source unit.count.Q
Info:  1.2  1.7    Net unit.count[3] budget 0.000000 ns (35,15) -> (35,18)
Info:                Sink unit.lut.A3
Info:  0.1  1.8  Source unit.lut.O6
Info:  0.9  2.7    Net unit.sum budget 0.000000 ns (35,18) -> (36,18)
Info:                Sink unit.sum.D
Info:  0.1  2.8  Setup unit.sum.D
Info: 0.7 ns logic, 2.1 ns routing

Info: Max frequency for clock 'clk': 357.14 MHz (PASS at 125.00 MHz)
"""
#: The newer style.
XILINX_LOG_TYPED = XILINX_LOG.replace("Info: curr total", "Info:       type curr  total name").replace(
    "Info:  0.5  0.5  Source", "Info:   clk-to-q  0.50  0.50 Source").replace(
    "Info:  1.2  1.7    Net", "Info:    routing  1.20  1.70 Net").replace(
    "Info:  0.1  1.8  Source", "Info:      logic  0.10  1.80 Source").replace(
    "Info:  0.9  2.7    Net", "Info:    routing  0.90  2.70 Net").replace(
    "Info:  0.1  2.8  Setup", "Info:      setup  0.10  2.80 Source")

#: A unit to place: out is a register of in.
RTLIL = r"""module \unit
  wire input 0 \clk
  wire input 1 \rst
  wire width 2 input 2 \in
  attribute \init 2'00
  wire width 2 output 3 \out
  wire width 2 $1
  process $2
    assign $1 [1:0] \in
    switch \rst
      case 1'1
        assign $1 [1:0] 2'00
    end
    sync posedge \clk
      update \out [1:0] $1 [1:0]
  end
end
"""
