"""DSP48E1 and DSP48E2 as far as the multiplier array uses them, after UG479 and UG579, for Amaranth's simulator, which
cannot run instances: takes the arguments of an ``Instance`` and its place."""

from amaranth.hdl import Elaboratable, Module, Mux, Signal, Value, signed

OFF = {"CEC", "CECTRL", "CEALUMODE", "CEINMODE", "CECARRYIN", "RSTA", "RSTB", "RSTC", "RSTD", "RSTM", "RSTP", "RSTCTRL",
       "RSTALUMODE", "RSTINMODE", "RSTALLCARRYIN", "ALUMODE", "CARRYIN", "CARRYINSEL", "CARRYCASCIN", "MULTSIGNIN", "ACIN",
       "BCIN"}
FIXED = {"CREG": 0, "ALUMODEREG": 0, "CARRYINREG": 0, "CARRYINSELREG": 0, "INMODEREG": 0, "OPMODEREG": 0,
         "A_INPUT": "DIRECT", "B_INPUT": "DIRECT", "USE_MULT": "MULTIPLY", "USE_SIMD": "ONE48"}


class Dsp48(Elaboratable):
    def __init__(self, kind: str, **arguments):
        self.e2 = kind == "DSP48E2"
        assert self.e2 or kind == "DSP48E1"
        self.p, self.i, self.o = ({k[2:]: v for k, v in arguments.items() if k.startswith(f"{d}_")} for d in "pio")
        self.i = {k: Value.cast(v) for k, v in self.i.items()}
        p = self.p
        for name, value in FIXED.items():
            assert p.pop(name) == value, name
        for r in "AB":  # UG479 table 2-2: the cascade's depth follows the register's
            assert p.pop(f"{r}CASCREG") in ((1, 2) if p[f"{r}REG"] == 2 else (p[f"{r}REG"],))
        if self.e2:
            assert (p.pop("BMULTSEL"), p.pop("PREADDINSEL")) == ("B", "A")
            self.preadd = {"A": False, "AD": True}[p.pop("AMULTSEL")]
        else:
            self.preadd = {"FALSE": False, "TRUE": True}[p.pop("USE_DPORT")]
        assert set(p) == {"AREG", "BREG", "DREG", "ADREG", "MREG", "PREG"}
        port = 27 if self.e2 else 25
        widths = {"A": 30, "B": 18, "C": 48, "D": port, "PCIN": 48, "OPMODE": 9 if self.e2 else 7, "INMODE": 5}
        enables = {"CEA1", "CEA2", "CEB1", "CEB2", "CED", "CEAD", "CEM", "CEP"}
        assert set(self.i) == OFF | enables | set(widths) | {"CLK"}
        assert all(len(self.i[k]) == w for k, w in widths.items()), {k: len(self.i[k]) for k in widths}
        self.port = port

    def elaborate(self, platform):
        m, i, p = Module(), self.i, self.p

        def reg(v, enable, shape):
            r = Signal(shape)
            with m.If(enable):
                m.d.sync += r.eq(v)
            return r

        def regs(v, number, enable1, enable2, shape):
            if number == 2:
                v = reg(v, enable1, shape)
            return reg(v, enable2, shape) if number else v

        port = signed(self.port)
        a = regs(i["A"][:self.port].as_signed(), p["AREG"], i["CEA1"], i["CEA2"], port)
        b = regs(i["B"].as_signed(), p["BREG"], i["CEB1"], i["CEB2"], signed(18))
        d = regs(i["D"].as_signed(), p["DREG"], 0, i["CED"], port)
        ad = Signal(port)
        m.d.comb += ad.eq(a + Mux(i["INMODE"][2], d, 0))
        ad = regs(ad, p["ADREG"], 0, i["CEAD"], port)
        product = regs((ad if self.preadd else a) * b, p["MREG"], 0, i["CEM"], signed(self.port + 18))
        opmode, total, held = i["OPMODE"], Signal(signed(48)), Signal(signed(48))
        z, w = Signal(signed(48)), Signal(signed(48))
        with m.Switch(opmode[4:7]):
            for value, source in ((1, i["PCIN"]), (2, held), (3, i["C"])):
                with m.Case(value):
                    m.d.comb += z.eq(source)
        if self.e2:
            with m.If(opmode[7:9] == 1):
                m.d.comb += w.eq(held)
        m.d.comb += total.eq(z + w + Mux(opmode[:4] == 0b0101, product, 0))
        if p["PREG"]:
            with m.If(i["CEP"]):
                m.d.sync += held.eq(total)
            total = held
        for name in ("P", "PCOUT"):
            m.d.comb += self.o[name].eq(total)
        return m
